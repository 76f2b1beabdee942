//! Files that are read at random and never change: mapped.
//!
//! A mapped page that cannot be read, or that is behind the end of a file which has become shorter, kills the process with SIGBUS.
//! So a file is proved first: every page is read once, and what fails is known. What fails later ends the process with a sentence
//! ([`end_on_bus_errors`]). Nothing is mapped once the first change of a directory is made.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};

/// Bytes that are proved at once.
const PIECE: u64 = 4 << 20;

/// Bytes of which the system reads all or none.
const PAGE: u64 = PAGE_SIZE as u64;
const PAGE_SIZE: usize = 4096;

/// A mapped file. It is never written through.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// Until every page has been read.
    file: Option<File>,
    path: PathBuf,
    /// An empty file cannot be mapped.
    map: Option<Mmap>,
}

/// Pages of a file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnreadablePages {
    /// Them, as offsets in the file.
    pub(crate) ranges: Vec<Range<u64>>,
    /// What the system says of the first.
    pub(crate) error: String,
}

impl Mapped {
    /// Maps a file that [`super::open`] opens, of at most `longest` bytes.
    pub(crate) fn open(path: &Path, longest: u64) -> io::Result<Self> {
        let file = super::open::open_up_to(path, longest)?;
        let length = file.metadata()?.len();
        let map = (length > 0).then(|| map(&file)).transpose()?;
        Ok(Self { file: Some(file), path: path.to_owned(), map })
    }

    /// Maps a file that is open.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let map = (file.metadata()?.len() > 0).then(|| map(file)).transpose()?;
        Ok(Self { file: Some(file.try_clone()?), path: PathBuf::new(), map })
    }

    /// What stands for a file that is not there: no bytes.
    pub(crate) fn nothing() -> Self {
        Self { file: None, path: PathBuf::new(), map: None }
    }

    /// All of it. Pages that [`Self::prove`] has not read may be unreadable.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Reads every page, and keeps none of them in memory.
    ///
    /// # Errors
    /// With what cannot be read.
    pub(crate) fn prove(&mut self, advance: &mut dyn FnMut(u64)) -> Result<(), UnreadablePages> {
        let length = self.bytes().len() as u64;
        let mut failed: Option<UnreadablePages> = None;
        let mut at = 0;
        while at < length {
            let piece = at..length.min(at + PIECE);
            if !self.populate(&piece) {
                self.read_pages(&piece, &mut failed);
            }
            self.forget(piece.clone());
            advance(piece.end - piece.start);
            at = piece.end;
        }
        self.close();
        failed.map_or(Ok(()), Err)
    }

    /// Gives the descriptor back: a block may have more files than a process may open. The map stays.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    /// Takes the pages of a range out of memory; they can be read again.
    pub(crate) fn forget(&self, range: Range<u64>) {
        let place = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let (Some(map), Some((start, end))) = (&self.map, place) else { return };
        let end = end.min(map.len());
        if start < end {
            forget(map, start..end);
        }
    }

    /// Whether the system has read a piece. Not every one can be asked to.
    #[cfg(target_os = "linux")]
    fn populate(&self, piece: &Range<u64>) -> bool {
        let place = usize::try_from(piece.start).ok().zip(usize::try_from(piece.end).ok());
        let (Some(map), Some((start, end))) = (&self.map, place) else { return false };
        map.advise_range(memmap2::Advice::PopulateRead, start, end - start).is_ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn populate(&self, _: &Range<u64>) -> bool {
        false
    }

    /// Reads a piece page by page, as a file.
    fn read_pages(&self, piece: &Range<u64>, failed: &mut Option<UnreadablePages>) {
        let file = match &self.file {
            Some(file) => file.try_clone(),
            None => super::open::open_up_to(&self.path, u64::MAX),
        };
        let mut buffer = [0; PAGE_SIZE];
        let mut at = piece.start;
        while at < piece.end {
            let end = piece.end.min(at + PAGE);
            let page = buffer.get_mut(..usize::try_from(end - at).unwrap_or(0)).unwrap_or_default();
            let read = file.as_ref().map_or_else(
                |error: &io::Error| Err(io::Error::new(error.kind(), error.to_string())),
                |file| file.read_exact_at(page, at),
            );
            if let Err(error) = read {
                let failed = failed.get_or_insert_with(|| UnreadablePages {
                    ranges: Vec::new(),
                    error: match error.kind() {
                        io::ErrorKind::UnexpectedEof => "the file has become shorter".to_owned(),
                        _ => error.to_string(),
                    },
                });
                match failed.ranges.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => failed.ranges.push(at..end),
                }
            }
            at = end;
        }
    }
}

#[expect(unsafe_code, reason = "a mapped file may be changed by others; nobody changes files of blocks")]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: Prometheus writes a block once, in a directory of another name, and never changes it. If somebody does it all the same,
    // bytes change under a reader that checks each bound, and a page that goes away ends the process.
    unsafe { Mmap::map(file) }
}

#[expect(unsafe_code, reason = "the interface cannot tell a map of a file from memory of its own")]
fn forget(map: &Mmap, range: Range<usize>) {
    // SAFETY: the map is of a file, shared and never written, so that its pages are read again as they were. A failure leaves them.
    let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
}

/// From now on a mapped page that cannot be read ends the process with a sentence, and with exit code 8. For programs: a library does
/// not settle what a signal does.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no crate lets a handler of SIGBUS be set")]
pub fn end_on_bus_errors() {
    extern "C" fn end(_: libc::c_int) {
        const SENTENCE: &[u8] = b"walfix: a file of a block became shorter or unreadable while it was read; nothing was changed\n  \
            Run it again. If it happens again, the disk fails: copy the data directory first.\n";
        // SAFETY: both may be called in a handler of a signal (signal-safety(7)).
        unsafe {
            libc::write(2, SENTENCE.as_ptr().cast(), SENTENCE.len());
            libc::_exit(8);
        }
    }
    // SAFETY: the handler calls nothing but functions that may be called in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = end as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

/// Elsewhere the system ends the process.
#[cfg(not(target_os = "linux"))]
pub fn end_on_bus_errors() {}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_mapped_is_what_is_there() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("index");
        for length in [0_u32, 1, 4095, 4096, 4097, 9 << 20] {
            let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            std::fs::write(&path, &bytes).unwrap();
            let mut mapped = Mapped::open(&path, u64::MAX).unwrap();
            let mut proved = 0;
            mapped.prove(&mut |bytes| proved += bytes).unwrap();
            assert_eq!(proved, u64::from(length));
            assert!(mapped.bytes() == bytes);
            mapped.forget(1..u64::from(length) + 10_000);
            assert!(mapped.bytes() == bytes);
        }
        assert!(Mapped::open(&path, 100).is_err());
    }

    #[test]
    fn pages_behind_the_end_are_not_readable() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("index");
        std::fs::write(&path, vec![1; 40_000]).unwrap();
        let mut mapped = Mapped::open(&path, u64::MAX).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(20_000).unwrap();
        let failed = mapped.prove(&mut |_| {}).unwrap_err();
        assert_eq!(failed.error, "the file has become shorter");
        assert!(matches!(&failed.ranges[..], [range] if *range == (16_384..40_000)), "{:?}", failed.ranges);
    }

    /// Only a process of its own may die of it.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_bus_error_ends_the_process_with_a_sentence() {
        const CHILD: &str = "WALFIX_TEST_BUS_ERROR";
        if let Some(path) = std::env::var_os(CHILD) {
            end_on_bus_errors();
            let path = Path::new(&path);
            let mut mapped = Mapped::open(path, u64::MAX).unwrap();
            mapped.prove(&mut |_| {}).unwrap();
            File::options().write(true).open(path).unwrap().set_len(0).unwrap();
            std::process::exit(i32::from(std::hint::black_box(mapped.bytes())[5000]));
        }
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("index");
        std::fs::write(&path, vec![1; 40_000]).unwrap();
        let name = "io::mapped::tests::a_bus_error_ends_the_process_with_a_sentence";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, &path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), Some(8), "{said}");
        assert!(said.contains("walfix: a file of a block became shorter or unreadable"), "{said}");
    }
}
