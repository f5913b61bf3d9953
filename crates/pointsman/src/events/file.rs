//! The file that events are kept in: a JSON object a line, in two halves, so that it is bounded and the older half can
//! be thrown away as a whole. A line that was cut off by the end of the process is taken back at the next start.
use super::line::Line;
use pointsman_config::EventsFile as Setting;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where services keep what outlives them, if systemd does not say (`StateDirectory=`).
const STATE_DIRECTORY: &str = "/var/lib/pointsman";
const NAME: &str = "events.jsonl";
/// So many bytes at the end of each half are read at the start.
const READ_MAX: u64 = 8 << 20;
/// The longest first line.
const HEAD_MAX: u64 = 4096;

/// Where the file is to be; `None`: nowhere. `env` gives the variables of the environment.
pub fn place(setting: &Setting, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    match setting {
        Setting::Off => None,
        Setting::At(path) => Some(path.clone()),
        Setting::Auto => {
            let given = env("STATE_DIRECTORY").filter(|d| !d.is_empty());
            // systemd writes several with colons.
            let given = given.and_then(|d| d.split(':').next().map(PathBuf::from));
            let usual = || Some(PathBuf::from(STATE_DIRECTORY)).filter(|d| d.is_dir());
            Some(given.or_else(usual)?.join(NAME))
        }
    }
}

/// The first line of each half.
#[derive(Serialize, Deserialize)]
struct Head {
    /// Tells one sequence of numbers from the next.
    journal: u64,
}

/// What the file had.
pub(super) struct Found {
    pub(super) id: u64,
    /// The newest events, oldest first.
    pub(super) lines: Vec<Line>,
}

/// The open file.
pub(super) struct EventsFile {
    path: PathBuf,
    /// `None` after something went wrong.
    file: Option<File>,
    size: u64,
    half_max: u64,
    id: u64,
    /// Held as long as this lives: one process writes.
    _lock: File,
}

impl EventsFile {
    /// Opens or begins the file at `path`, of at most `size_max` bytes with its older half beside it, and reads the
    /// newest `most` events. `id` is that of a file that begins now.
    pub(super) fn open(path: &Path, size_max: u64, id: u64, most: usize) -> io::Result<(EventsFile, Found)> {
        let lock = options().open(beside(path, ".lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another process writes it"))?;
        let older = beside(path, ".1");
        let id = [path, &older].iter().find_map(|half| head(half)).unwrap_or(id);
        let mut lines = read(&older)?;
        lines.extend(read(path)?);
        lines.drain(..lines.len().saturating_sub(most));
        let mut file = EventsFile {
            path: path.to_owned(),
            file: None,
            size: 0,
            half_max: size_max / 2,
            id,
            _lock: lock,
        };
        file.open_half()?;
        Ok((file, Found { id, lines }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one line. After an error the next call tries anew.
    pub(super) fn append(&mut self, line: &Line) -> io::Result<()> {
        let line = serde_json::to_string(line)? + "\n";
        if self.moved() {
            self.file = None;
        }
        if self.file.is_none() {
            self.open_half()?;
        }
        if self.size + line.len() as u64 > self.half_max {
            self.file = None;
            fs::rename(&self.path, beside(&self.path, ".1"))?;
            self.open_half()?;
        }
        self.write(&line)
    }

    /// Somebody moved the file away.
    fn moved(&self) -> bool {
        let inode = |m: io::Result<fs::Metadata>| m.ok().map(|m| (m.dev(), m.ino()));
        let open = self.file.as_ref().and_then(|f| inode(f.metadata()));
        open != inode(fs::metadata(&self.path))
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let Some(mut file) = self.file.take() else { return Err(io::ErrorKind::NotFound.into()) };
        file.write_all(text.as_bytes())?;
        self.size += text.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    /// Opens the newer half; takes back what its last line lacks, and begins it if it is empty.
    fn open_half(&mut self) -> io::Result<()> {
        let mut file = options().read(true).open(&self.path)?;
        self.size = whole(&mut file)?;
        file.set_len(self.size)?;
        file.seek(SeekFrom::End(0))?;
        self.file = Some(file);
        if self.size == 0 {
            self.write(&(serde_json::to_string(&Head { journal: self.id })? + "\n"))?;
        }
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o640);
    options
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Up to where a file has whole lines.
fn whole(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut chunk = [0; 4096];
    while end > 0 {
        let n = end.min(chunk.len() as u64);
        file.seek(SeekFrom::Start(end - n))?;
        let chunk = &mut chunk[..n as usize];
        file.read_exact(chunk)?;
        if let Some(i) = chunk.iter().rposition(|b| *b == b'\n') {
            return Ok(end - n + i as u64 + 1);
        }
        end -= n;
    }
    Ok(0)
}

fn head(path: &Path) -> Option<u64> {
    let mut line = String::new();
    BufReader::new(File::open(path).ok()?.take(HEAD_MAX)).read_line(&mut line).ok()?;
    serde_json::from_str::<Head>(&line).ok().map(|h| h.journal)
}

/// The events at the end of a half; none if there is no such file. Lines that are no events are passed over.
fn read(path: &Path) -> io::Result<Vec<Line>> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(READ_MAX)))?;
    let mut bytes = Vec::new();
    file.take(READ_MAX).read_to_end(&mut bytes)?;
    let lines = bytes.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice::<Line>(l).ok());
    Ok(lines.filter(|l| l.n > 0).collect())
}
