//! The proxy of the sandbox: this very program as a child, and what its admin listener says.
use super::deployment::{Deployment, free_addr};
use super::growth::Held;
use super::watchdog::end;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long the admin listener may take to answer.
const ANSWER: Duration = Duration::from_millis(500);
/// The most of an answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// A running proxy; dropping it kills it.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
}

/// What the proxy says of its only service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// `serving`, `holding` or `down`.
    pub state: String,
    /// The number of the current grant; 0 before the first.
    pub term: u64,
    /// The master's address.
    pub master: Option<String>,
    /// `open`, `hold` or `refuse`.
    pub writes: String,
    /// The same for reads.
    pub reads: String,
    /// Commands that wait.
    pub held: u64,
    /// Why it is so.
    pub why: String,
}

impl Proxy {
    /// Starts `program` before the deployment, to listen on `port` (or a free one), without waiting for it.
    pub fn start(program: &Path, deployment: &Deployment, port: Option<u16>) -> io::Result<Self> {
        let source = ["--sentinel", &deployment.sentinel_list(), "--master", deployment.master_name()];
        Self::launch(program, deployment, port, |command, listen| {
            command.args(["--listen", &listen.to_string()]).args(source);
            Ok(())
        })
    }

    /// The same, with a configuration file whose service has these `lines` too.
    pub fn start_with(program: &Path, deployment: &Deployment, lines: &str) -> io::Result<Self> {
        let (sentinels, master) = (deployment.sentinel_list(), deployment.master_name());
        Self::launch(program, deployment, None, |command, listen| {
            let file = deployment.dir().join("proxy.toml");
            std::fs::write(
                &file,
                format!(
                    "[[service]]\nname = \"{master}\"\nlisten = [\"{listen}\"]\nsentinels = \"{sentinels}\"\n\
                     master = \"{master}\"\n{lines}\n"
                ),
            )?;
            command.arg("-c").arg(file);
            Ok(())
        })
    }

    fn launch(
        program: &Path,
        deployment: &Deployment,
        port: Option<u16>,
        tell: impl FnOnce(&mut Command, SocketAddr) -> io::Result<()>,
    ) -> io::Result<Self> {
        let listen = match port {
            Some(port) => SocketAddr::from(([127, 0, 0, 1], port)),
            None => free_addr()?,
        };
        let (admin, log) = (free_addr()?, deployment.dir().join("proxy.log"));
        let out = File::create(&log)?;
        let mut command = Command::new(program);
        command.args(["run", "--admin", &admin.to_string()]);
        tell(&mut command, listen)?;
        // What is only tried is not to be found among what happened to the host's own proxy.
        command.env("STATE_DIRECTORY", deployment.dir());
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        Ok(Self { child: deployment.spawn(&mut command)?, listen, admin, log })
    }

    /// Where clients connect.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Its log so far has this as its end; what to show when it has failed.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// How it ended, if it did; it should not.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("the proxy ended ({status}):\n{}", self.log_tail()))
    }

    /// What it has of the system's resources.
    pub fn held(&self) -> Option<Held> {
        Held::of(self.child.id())
    }

    /// Asks `/api/status`.
    pub fn status(&self) -> io::Result<Status> {
        let body = get(self.admin, "/api/status")?;
        let json = serde_json::from_slice(&body).map_err(io::Error::other)?;
        status_of(&json).ok_or_else(|| io::Error::other("the status has no service"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn status_of(json: &Value) -> Option<Status> {
    let service = json.get("services")?.get(0)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(Status {
        state: text(&service["state"]),
        term: service["term"].as_u64().unwrap_or_default(),
        master: service["master"].as_str().map(str::to_owned),
        writes: text(&service["gates"]["writes"]),
        reads: text(&service["gates"]["reads"]),
        held: service["held"].as_u64().unwrap_or_default(),
        why: text(&service["why"]),
    })
}

/// The body of a page. HTTP/1.0, so that it comes plain and ends with the connection.
fn get(addr: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&addr, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let cut = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let head = answer.split(|&b| b == b'\r').next().unwrap_or_default();
    match cut {
        Some(cut) if head.windows(5).any(|w| w == b" 200 ") => Ok(answer.split_off(cut + 4)),
        _ => Err(io::Error::other(format!("{path}: {}", String::from_utf8_lossy(head)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn serve(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        addr
    }

    #[test]
    fn a_page_is_what_follows_the_head() {
        assert_eq!(get(serve("HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody\r\n\r\n"), "/").unwrap(), b"body\r\n\r\n");
        let error = get(serve("HTTP/1.1 404 Not Found\r\n\r\n"), "/x").unwrap_err().to_string();
        assert_eq!(error, "/x: HTTP/1.1 404 Not Found");
    }

    #[test]
    fn the_status_of_the_service_is_read() {
        let json = serde_json::json!({"services": [{"name": "default", "state": "holding", "term": 3,
            "master": "127.0.0.1:7001", "why": "READONLY seen", "held": 12,
            "gates": {"writes": "hold", "reads": "open"}}]});
        let status = status_of(&json).unwrap();
        assert_eq!((status.term, status.held, status.state.as_str()), (3, 12, "holding"));
        assert_eq!((status.writes.as_str(), status.reads.as_str()), ("hold", "open"));
        assert_eq!(status.master.as_deref(), Some("127.0.0.1:7001"));
        assert_eq!(status_of(&serde_json::json!({"services": []})), None);
    }
}
