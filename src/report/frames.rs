//! The fragments around a finding, in lines that can be put into an issue as they are.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::page::clean;
use crate::scan::frames::{Frame, FrameKind};
use crate::scan::report::Finding;
use crate::wal::layout::Header;

/// Writes the frames around a finding. Offsets are plain numbers, as Prometheus prints them.
///
/// # Errors
/// Those of `out`.
pub fn write(finding: &Finding, frames: &[Frame], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    let (start, end) = (finding.offset.unwrap_or(0), finding.end.unwrap_or(0));
    writeln!(out, "{} [{start}, {end}) {}", clean(&finding.path), finding.code)?;
    writeln!(out, "  {:>10} {:>10}  {:<6} {:<6} {:>6}  crc32c", "offset", "end", "type", "flags", "length")?;
    for frame in frames {
        let mark = if frame.within { '>' } else { ' ' };
        let range = format!("{mark} {:>10} {:>10}", frame.range.start, frame.range.end);
        writeln!(out, "{range}  {}", words(frame))?;
    }
    Ok(())
}

fn words(frame: &Frame) -> String {
    let length = frame.range.end - frame.range.start;
    match &frame.kind {
        FrameKind::Fragment { header, record } => {
            let record = record.map_or_else(String::new, |record| format!("  {record}"));
            format!("{}  {:08x} ok{record}", columns(*header), header.crc)
        }
        FrameKind::Padding => format!("zeros up to the page end ({length} bytes)"),
        FrameKind::Omitted => format!("... {length} bytes"),
        FrameKind::Damage { header, computed, bytes } => {
            let mut words = header.map_or_else(String::new, columns);
            if let Some(header) = header {
                let _ = write!(words, "  {:08x}", header.crc);
            }
            if let Some(computed) = computed {
                let _ = write!(words, ", the data has {computed:08x}");
            }
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let more = if length > bytes.len() as u64 { " ..." } else { "" };
            let words = words.trim_start();
            format!("{words}\n{:26}{}{more}", "", hex.join(" "))
        }
    }
}

fn columns(header: Header) -> String {
    let kind = match header.head.kind().name() {
        "<invalid>" => format!("{:#x}", header.head.0),
        name => name.to_owned(),
    };
    let flags = match header.head.compression().name() {
        "none" => "-",
        name => name,
    };
    format!("{kind:<6} {flags:<6} {:>6}", header.length)
}
