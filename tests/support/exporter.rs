//! A target to scrape: counters, gauges, classic histograms, exemplars, late samples and native histograms, all made
//! up, the same for the same scrape number.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::server::{Error, io};

/// Upper bounds of the classic histograms' buckets.
const BOUNDS: [&str; 5] = ["0.1", "0.5", "1.0", "5.0", "+Inf"];

/// What an exporter serves.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Counters `walfix_requests_total`, each with an exemplar.
    pub counters: usize,
    /// Gauges `walfix_temperature`.
    pub gauges: usize,
    /// Classic histograms `walfix_latency_seconds`, 7 series each, exemplars on their buckets.
    pub classic: usize,
    /// Native histograms `walfix_size_bytes`, at `/native`.
    pub native: usize,
    /// Series `walfix_late` that get samples of the past.
    pub late: usize,
    /// How many samples of the past each of those gets with every scrape.
    pub late_samples: usize,
    /// Series `walfix_churn` that exist for a few scrapes only, at any one time.
    pub churn: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { counters: 100, gauges: 100, classic: 10, native: 5, late: 10, late_samples: 8, churn: 10 }
    }
}

/// Serves made-up metrics on 127.0.0.1 until dropped.
#[derive(Debug)]
pub struct Exporter {
    address: SocketAddr,
    scrapes: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Starts one on a free port.
    ///
    /// # Errors
    ///
    /// If nothing can listen on 127.0.0.1.
    pub fn start(shape: Shape) -> Result<Self, Error> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(io("listen"))?;
        let address = listener.local_addr().map_err(io("listen"))?;
        let (scrapes, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (scrapes, stop) = (Arc::clone(&scrapes), Arc::clone(&stop));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    // A scraper that goes away in the middle is not the exporter's problem.
                    let _ = stream.and_then(|stream| serve(&stream, shape, &scrapes));
                }
            }
        });
        Ok(Self { address, scrapes, stop, thread: Some(thread) })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many scrapes of the text metrics have been answered.
    pub fn scrapes(&self) -> u64 {
        self.scrapes.load(Ordering::Acquire)
    }

    /// A configuration that scrapes it once in `interval`, takes samples that are up to 30 minutes late (servers
    /// only) and asks for native histograms too.
    pub fn config(&self, interval: Duration, agent: bool) -> String {
        let (address, ms) = (self.address, interval.as_millis());
        let storage = if agent { "" } else { "storage:\n  tsdb:\n    out_of_order_time_window: 30m\n" };
        format!(
            "global:\n  scrape_interval: {ms}ms\n  scrape_timeout: {ms}ms\n{storage}scrape_configs:\n\
             - job_name: text\n  static_configs: [{{targets: ['{address}']}}]\n\
             - job_name: native\n  metrics_path: /native\n  static_configs: [{{targets: ['{address}']}}]\n"
        )
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: &TcpStream, shape: Shape, scrapes: &AtomicU64) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let (kind, body) = if request.contains("/native") {
        (
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
            native(shape, scrapes.load(Ordering::Acquire)),
        )
    } else {
        let scrape = scrapes.fetch_add(1, Ordering::AcqRel);
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", text(shape, scrape).into_bytes())
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

/// The metrics of scrape number `scrape` in the `OpenMetrics` text format.
fn text(shape: Shape, scrape: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_text(&mut out, shape, scrape, now);
    out
}

fn write_text(out: &mut String, shape: Shape, scrape: u64, now: f64) -> std::fmt::Result {
    writeln!(out, "# TYPE walfix_requests counter\n# HELP walfix_requests Requests, made up.")?;
    for i in 0..shape.counters {
        let value = scrape * (i as u64 + 1);
        // A trace id per scrape: an exemplar equal to the last one is not stored again.
        writeln!(
            out,
            "walfix_requests_total{{path=\"/api/{i}\",code=\"{}\"}} {value} # {{trace_id=\"{scrape:08x}{i:08x}\"}} 0.{} {now:.3}",
            200 + i % 3,
            i % 10
        )?;
    }
    writeln!(out, "# TYPE walfix_temperature gauge\n# HELP walfix_temperature \u{b0}C.")?;
    for i in 0..shape.gauges {
        let value = (scrape.wrapping_mul(2_654_435_761) >> (i % 16)) % 10_000;
        writeln!(out, "walfix_temperature{{room=\"\u{fc}-{i}\"}} {}.{:02}", value / 100, value % 100)?;
    }
    writeln!(out, "# TYPE walfix_latency_seconds histogram")?;
    for i in 0..shape.classic {
        for (b, bound) in BOUNDS.iter().enumerate() {
            let value = scrape * (b as u64 + 1);
            writeln!(
                out,
                "walfix_latency_seconds_bucket{{i=\"{i}\",le=\"{bound}\"}} {value} # {{trace_id=\"h{scrape:x}\"}} 0.{b} {now:.3}"
            )?;
        }
        writeln!(out, "walfix_latency_seconds_count{{i=\"{i}\"}} {}", scrape * BOUNDS.len() as u64)?;
        writeln!(out, "walfix_latency_seconds_sum{{i=\"{i}\"}} {scrape}.5")?;
    }
    writeln!(out, "# TYPE walfix_churn gauge")?;
    for i in 0..shape.churn {
        // Another generation every 16 scrapes, not all at once.
        writeln!(out, "walfix_churn{{i=\"{i}\",generation=\"{}\"}} {scrape}", (scrape + i as u64) / 16)?;
    }
    writeln!(out, "# TYPE walfix_late gauge")?;
    for i in 0..shape.late {
        // The first is of now; those after it go back by half a second each, starting a minute ago: all out of order.
        // The scrape's fraction of a second makes their timestamps differ from those of other scrapes.
        writeln!(out, "walfix_late{{i=\"{i}\"}} {scrape} {now:.3}")?;
        for k in 0..shape.late_samples {
            #[allow(clippy::cast_precision_loss)] // a handful
            let time = now - 60.0 - k as f64 * 0.5;
            writeln!(out, "walfix_late{{i=\"{i}\"}} {k} {time:.3}")?;
        }
    }
    writeln!(out, "# EOF")
}

/// Native histograms of scrape number `scrape`: one `MetricFamily` message of Prometheus's client model,
/// with its length before it.
fn native(shape: Shape, scrape: u64) -> Vec<u8> {
    let mut family = Vec::new();
    bytes(&mut family, 1, b"walfix_size_bytes");
    number(&mut family, 3, 4); // MetricType HISTOGRAM
    for i in 0..shape.native {
        let mut label = Vec::new();
        bytes(&mut label, 1, b"i");
        bytes(&mut label, 2, i.to_string().as_bytes());
        let grown = scrape + i as u64;
        let mut span = Vec::new();
        number(&mut span, 1, zigzag(-2)); // offset
        number(&mut span, 2, 3); // length
        let mut histogram = Vec::new();
        number(&mut histogram, 1, grown * 6 + 1); // sample_count
        double(&mut histogram, 2, 1.5); // sample_sum
        number(&mut histogram, 5, zigzag(3)); // schema
        double(&mut histogram, 6, 1e-9); // zero_threshold
        number(&mut histogram, 7, 1); // zero_count
        bytes(&mut histogram, 12, &span); // positive_span
        // Buckets of 1, 2 and 3 times `grown`, each as its difference from the one before.
        for _ in 0..3 {
            number(&mut histogram, 13, zigzag(grown.cast_signed())); // positive_delta
        }
        let mut metric = Vec::new();
        bytes(&mut metric, 1, &label);
        bytes(&mut metric, 7, &histogram);
        bytes(&mut family, 4, &metric);
    }
    let mut out = Vec::new();
    varint(&mut out, family.len() as u64);
    out.extend(family);
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// A protobuf field of wire type 0.
fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

/// A protobuf field of wire type 1.
fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    varint(out, field << 3 | 1);
    out.extend(value.to_le_bytes());
}

/// A protobuf field of wire type 2.
fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value);
}
