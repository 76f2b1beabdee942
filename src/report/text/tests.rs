use super::{Style, WIDTH, columns, number, size, times, write};
use crate::forecast::report::Forecast;
use crate::report::samples::{self, FROM, TO};
use crate::scan::code::Code;
use crate::scan::report::{Finding, Report, Severity, Verdict};

fn text(report: &Report, style: Style) -> String {
    let mut bytes = Vec::new();
    write(report, None, None, &mut bytes, style).expect("a Vec takes all");
    String::from_utf8(bytes).expect("text")
}

#[track_caller]
fn assert_text(report: &Report, expected: &str) {
    let text = text(report, Style::default());
    let expected = expected.trim_start_matches('\n');
    assert!(text == expected, "got:\n{text}\nexpected:\n{expected}");
}

#[test]
fn nothing() {
    assert_text(
        &samples::empty(),
        "
/prometheus  clean  nothing here yet: Prometheus will create it

  log  kind  segments  size  records  series  samples  other  times in UTC
  wal  wal          0   0 B        0       0        0      0
",
    );
}

#[test]
fn clean() {
    assert_text(
        &samples::clean(),
        "
/prometheus  clean  4 segments
  5.2 MB, 1 022 records, 778 000 samples, 2026-11-21 19:24:15 to 19:30:31 UTC

  log  kind  segments    size  records  series  samples  other  times in UTC
  wal  wal          4  5.2 MB    1 022     212  778 000      0  2026-11-21 19:24:15 to 19:30:31
",
    );
}

#[test]
fn one_damage() {
    assert_text(
        &samples::one_damage(),
        "
/prometheus  DAMAGED  1 place in 4 segments
  5.2 MB, 1 022 records, 778 000 samples, 2026-11-21 19:24:15 to 19:30:31 UTC

  damage   wal/00000002  [19 934, 32 768)  checksum_mismatch
           the data do not have the checksum that their header says
           likely cause: one flipped bit, by memory, disk or transfer
           lost: 1 record with 778 entries
           also lost: an intact fragment of the same record at [32 768, 40 000)
           correction: bit 3 of byte 20 001, flipped back, gives a record of type samples with
           778 entries; 1 in 4 294 967 296 other corruptions would look identical

  walfix explain checksum_mismatch says what this means, and what to do

  log  kind  segments    size  records  series  samples  other  times in UTC
  wal  wal          4  5.2 MB    1 022     212  778 000      0  2026-11-21 19:24:15 to 19:30:31
",
    );
}

#[test]
fn many() {
    let text = text(&samples::many(), Style::default());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "/prometheus  DAMAGED  30 places in 19 segments, 15 warnings");
    assert_eq!(text.matches("\n  damage ").count(), 10);
    assert_eq!(text.matches("\n  warning ").count(), 10);
    // Damage comes first, and with what is left out.
    let damages = "
  damage   wal/00000012  [32 768, 98 304)  zeroed_pages  2 places in a row
           pages of zeros with something behind them
           likely cause: never reached the disk: a power cut, or a full disk
           lost: not known

           ... and 5 more zeroed_pages in segments 13 to 17 of wal; --format json has all

  warning  wal/00000003  unknown_refs
           no series record defines this ref

  warning  wal/00000004  unknown_refs
";
    assert!(text.contains(damages), "{text}");
    let end = "
           ... and 5 more unknown_refs in segments 13 to 17 of wal; --format json has all

  walfix explain zeroed_pages says what this means, and what to do

  log                      kind        segments     size  records  series  samples  other
  wal                      wal               18   5.2 MB    1 022     212  778 000      0
    times in UTC: 2026-11-21 19:24:15 to 19:30:31
  wal/checkpoint.00000002  checkpoint         1  32.8 kB        2       1        0      3
";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn as_many_as_are_shown_and_one_more() {
    for (all, more) in
        [(10, ""), (11, "... and 1 more zeroed_pages in segment 7 of wal; --format json has all")]
    {
        let mut damage = samples::finding(Code::ZeroedPages, Severity::Damage, "wal/00000007");
        damage.detail = crate::scan::detail::Detail::Words("zeros".into());
        let text = text(&samples::report(Vec::new(), vec![damage; all]), Style::default());
        assert_eq!(text.matches("zeroed_pages\n").count(), 10);
        assert_eq!(text.contains("more"), !more.is_empty());
        assert!(text.contains(more), "{text}");
    }
}

#[test]
fn strange_path() {
    assert_text(
        &samples::strange_path(),
        "
/données/Prometheus データ/a\\nb\\u{1b}[2J/wal  clean  1 segment, 1 note (5 B, 0 records, 0 samples)

  note     00000000  [0, 5)  torn_record
           the file ends within a fragment
           likely cause: the server died, or was stopped, while it wrote this
           lost: 1 record; how many entries it had is not known

  log  kind         segments  size  records  series  samples  other  times in UTC
  .    wal of Loki         1   5 B        0       0        0      0
",
    );
}

#[test]
fn huge() {
    assert_text(
        &samples::huge(),
        "
/prometheus  DAMAGED  18 446 744 073 709 551 615 places in 1 segment
  18.4 EB, 18 446 744 073 709 551 615 records, 18 446 744 073 709 551 615 samples,
  -9 223 372 036 854 775 808 ms to 9 223 372 036 854 775 807 ms

  damage   chunk_snapshot.000017.0000032768/00000000
           [18 446 744 073 709 551 614, 18 446 744 073 709 551 615)  decode_error
           18 446 744 073 709 551 615 places in a row
           xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
           xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
           xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
           likely cause: wrong before it was written, or pieces that do not belong together; the
           checksums are right
           lost: 18 446 744 073 709 551 615 records; how many entries they had is not known
           also lost: intact fragments of the same record at [0, 18 446 744 073 709 551 615),
           [0, 18 446 744 073 709 551 615), [0, 18 446 744 073 709 551 615) and 37 more
           correction: bit 7 of byte 18 446 744 073 709 551 615, flipped back, gives a record of
           type custom_buckets_float_histogram_samples with 18 446 744 073 709 551 615 entries;
           1 in 18 446 744 073 709 551 615 other corruptions would look identical

  walfix explain decode_error says what this means, and what to do

  chunk_snapshot.000017.0000032768  chunk snapshot: segments 1, size 18.4 EB,
    records 18 446 744 073 709 551 615, series 18 446 744 073 709 551 615,
    samples 18 446 744 073 709 551 615, other entries 0, times in UTC: -9 223 372 036 854 775 808 ms
    to 9 223 372 036 854 775 807 ms
",
    );
}

#[test]
fn quiet() {
    let style = Style { quiet: true, ..Style::default() };
    assert_eq!(text(&samples::clean(), style), "");
    assert_eq!(text(&samples::strange_path(), style), "", "a note is no damage");
    assert_eq!(text(&samples::one_damage(), style), "/prometheus  DAMAGED  1 place in 4 segments\n");
}

#[test]
fn long_paths_are_cut_in_the_middle() {
    let long = format!("wal/{}", "0123456789".repeat(20));
    let mut report = samples::one_damage();
    report.path = format!("/{long}");
    report.findings[0].path = long;
    let text = text(&report, Style::default());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(columns(lines[0]), WIDTH);
    assert!(lines[0].starts_with("/wal/0123") && lines[0].contains('…') && lines[0].ends_with("6789"));
    assert_eq!(lines[1], "  DAMAGED  1 place in 4 segments");
    assert_eq!(columns(lines[4]), WIDTH);
    assert!(lines[4].starts_with("  damage   wal/0123") && lines[4].ends_with("6789"));
    assert_eq!(lines[5], "           [19 934, 32 768)  checksum_mismatch");
}

#[test]
fn any_report_fits() {
    let mut random = fastrand::Rng::with_seed(11);
    let random = (0..2_000).map(|_| samples::random(&mut random));
    for report in samples::by_hand().into_iter().chain(random) {
        let plain = text(&report, Style::default());
        for line in plain.lines() {
            assert!(columns(line) <= WIDTH, "{} columns: {line}", columns(line));
            assert!(!line.ends_with(' '), "{line:?}");
            assert!(!line.contains(char::is_control), "{line:?}");
        }
        assert!(plain.ends_with('\n') && !plain.ends_with("\n\n") && !plain.contains("\n\n\n"), "{plain}");
        // Colours change nothing else, and every one ends.
        let coloured = text(&report, Style { colour: true, quiet: false });
        assert!(coloured.contains("\u{1b}["));
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
        assert!(
            coloured.lines().all(|line| line.rfind("\u{1b}[0m") == line.rfind("\u{1b}[")),
            "{coloured:?}"
        );
        let quiet = text(&report, Style { colour: false, quiet: true });
        assert_eq!(quiet.is_empty(), report.verdict == Verdict::Clean);
        assert!(plain.starts_with(quiet.lines().next().unwrap_or_default()));
    }
}

#[test]
fn what_is_not_known_is_said_or_left_out() {
    let of = |severity, records, entries| {
        let mut finding = samples::finding(Code::Shrunk, severity, "wal/00000000");
        finding.lost.records = records;
        finding.lost.entries = entries;
        let report = samples::report(Vec::new(), vec![Finding { offset: Some(7), end: Some(7), ..finding }]);
        let text = text(&report, Style::default());
        assert!(text.contains("wal/00000000  at 7  shrunk\n"), "{text}");
        text.lines().skip(3).take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join("|")
    };
    assert_eq!(of(Severity::Damage, None, None), "lost: not known");
    assert_eq!(of(Severity::Note, None, None), "");
    assert_eq!(of(Severity::Damage, Some(0), None), "lost: nothing");
    assert_eq!(of(Severity::Damage, Some(0), Some(1)), "lost: 1 entry");
    assert_eq!(
        of(Severity::Damage, Some(2), None),
        "lost: 2 records; how many entries they had is not known"
    );
    assert_eq!(of(Severity::Damage, None, Some(2)), "lost: 2 entries; in how many records is not known");
    assert_eq!(of(Severity::Warning, Some(1), Some(1_000)), "lost: 1 record with 1 000 entries");
}

/// Without glue.
fn plain(text: &str) -> String {
    text.replace(super::GLUE, " ")
}

#[test]
fn numbers() {
    for (value, expected) in [
        (0, "0"),
        (999, "999"),
        (1_000, "1 000"),
        (100_000, "100 000"),
        (u64::MAX, "18 446 744 073 709 551 615"),
    ] {
        assert_eq!(plain(&number(value)), expected);
    }
    for (bytes, expected) in [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (134_217_728, "134.2 MB"),
        (u64::MAX, "18.4 EB"),
    ] {
        assert_eq!(plain(&size(bytes)), expected);
    }
}

#[test]
fn times_are_utc_or_milliseconds() {
    let of = |from, to| plain(&times(Some(from), Some(to)).expect("there are some"));
    assert_eq!(of(FROM, TO), "2026-11-21 19:24:15 to 19:30:31");
    assert_eq!(of(FROM, FROM + 999), "2026-11-21 19:24:15");
    assert_eq!(of(FROM, FROM + 86_400_000), "2026-11-21 19:24:15 to 2026-11-22 19:24:15");
    assert_eq!(of(-5, TO), "-5 ms to 2026-11-21 19:30:31");
    assert_eq!(of(FROM * 1_000, i64::MAX), "1 795 289 055 000 000 ms to 9 223 372 036 854 775 807 ms");
    assert_eq!(of(i64::MIN, i64::MIN), "-9 223 372 036 854 775 808 ms");
    assert_eq!(times(None, None), None);
}

/// The lines between the verdict and the findings.
#[track_caller]
fn assert_forecast_lines(forecast: &Forecast, expected: &str) {
    let mut bytes = Vec::new();
    write(&samples::clean(), Some(forecast), None, &mut bytes, Style::default()).expect("a Vec takes all");
    let text = String::from_utf8(bytes).expect("text");
    assert!(text.lines().all(|line| columns(line) <= WIDTH), "{text}");
    let forecast_lines = text.split("\n\n").nth(1).expect("it is there");
    let expected = expected.trim_matches('\n');
    assert!(forecast_lines == expected, "got:\n{forecast_lines}\nexpected:\n{expected}");
}

#[test]
fn forecast_lines_of_a_damaged_checkpoint() {
    assert_forecast_lines(
        &samples::checkpoint_damaged(),
        "
  If Prometheus 3.14 starts here:
    1st start: deletes wal/00000004, wal/00000005 and wal/00000006, then exits:
        opening storage failed: repair corrupted WAL: rename /prometheus/wal/00000000
        /prometheus/wal/00000000.repair: no such file or directory
      88 000 samples of 212 series, 2026-11-21 19:24:15 to 19:30:31 UTC, are gone for good
    from the 2nd start on: runs; it logs:
        backfill checkpoint: read records: corruption in segment
        /prometheus/wal/checkpoint.00000003/00000000 at 32768: unexpected checksum 1, expected 2
      107 300 samples of 700 series, 2026-11-21 19:24:15 to 19:30:31 UTC, are not loaded
      every such start deletes what was written to the WAL since the previous one
    do not start Prometheus until this is repaired, or copied elsewhere
",
    );
}

#[test]
fn forecast_lines_of_a_damaged_segment() {
    assert_forecast_lines(
        &samples::cut(),
        "
  If Prometheus 3.14 starts here:
    1st start: cuts wal/00000004 at 19 934 and deletes wal/00000005 to wal/00000012 (8 files), then
      runs
      88 000 samples of 212 series, 2026-11-21 19:24:15 to 19:30:31 UTC, are gone for good
    from the 2nd start on: runs, without what is lost
    do not start Prometheus until this is repaired, or copied elsewhere
",
    );
}

#[test]
fn forecast_lines_of_silent_damage() {
    assert_forecast_lines(
        &samples::silent(),
        "
  If Prometheus 3.14 starts here:
    every start: runs and loads all readable data
    the next checkpoint fails, and every one after it; the WAL grows until the disk is full:
        create checkpoint: read segments: corruption in segment /prometheus/wal/00000005 at 311:
        unexpected full record
      the damage itself is in wal/00000004 at 19 934
",
    );
}

#[test]
fn forecast_lines_of_samples_without_labels() {
    assert_forecast_lines(
        &samples::without_labels(),
        "
  If Prometheus 3.14 starts here:
    every start: runs and loads everything whose labels are known
      19 300 samples of 212 series, 2026-11-21 19:24:15 to 19:30:31 UTC, are dropped: nothing says
      what their labels are
",
    );
}

#[test]
fn forecast_lines_of_an_agent() {
    assert_forecast_lines(
        &samples::hanging_agent(),
        "
  If Prometheus (agent) 3.14 starts here:
    every start: hangs, and never becomes ready
",
    );
}

#[test]
fn what_prometheus_says_stands_where_the_damage_is() {
    let mut report = samples::one_damage();
    report.findings[0].path = "wal/00000004".into();
    let mut bytes = Vec::new();
    write(&report, Some(&samples::cut()), None, &mut bytes, Style::default()).expect("a Vec takes all");
    let text = String::from_utf8(bytes).expect("text");
    let (_, finding) = text.split_once("  damage   wal/00000004").expect("the finding");
    assert!(finding.contains("Prometheus says: read records: corruption in segment"), "{text}");
}
