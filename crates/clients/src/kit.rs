//! The languages: how each gets its libraries, and how one of its scripts is started.
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A language, with a registry of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kit {
    Python,
    Node,
    Rust,
}

/// Why nothing can be run.
pub(crate) enum Unready {
    /// The language or its registry is not to be had here.
    Missing(String),
    /// Ours are wrong.
    Broken(String),
}

impl Kit {
    pub(crate) const ALL: [Kit; 3] = [Kit::Python, Kit::Node, Kit::Rust];

    /// Its scripts.
    pub(crate) fn scripts(self) -> &'static [&'static str] {
        match self {
            Kit::Python => &["redis_py", "redis_asyncio", "celery_tasks", "rq_jobs", "django_cache"],
            Kit::Node => &["node_redis", "ioredis", "bullmq"],
            Kit::Rust => &["redis_rs", "fred"],
        }
    }

    /// Sees to it that the pinned versions are in `folder`, and that the scripts can be started.
    pub(crate) fn install(self, folder: &Path) -> Result<(), Unready> {
        let broken = |e| Unready::Broken(format!("{}: {e}", folder.display()));
        let pinned = fs::read_to_string(self.source().join(self.pins())).map_err(broken)?;
        let stamp = folder.join("installed");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == pinned) {
            return self.build(folder);
        }
        // What another version left must not be found.
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(broken(e)),
            _ => fs::create_dir_all(folder).map_err(broken)?,
        }
        self.fetch(folder)?;
        self.build(folder)?;
        fs::write(&stamp, pinned).map_err(broken)
    }

    fn fetch(self, folder: &Path) -> Result<(), Unready> {
        let source = self.source();
        let mut command = match self {
            Kit::Python => {
                let mut pip = Command::new("python3");
                pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]);
                pip.args(["--root-user-action", "ignore", "--target"]).arg(folder).arg("--requirement");
                pip.arg(source.join(self.pins()));
                pip
            }
            Kit::Node => {
                for file in ["package.json", self.pins()] {
                    fs::copy(source.join(file), folder.join(file))
                        .map_err(|e| Unready::Broken(format!("{file}: {e}")))?;
                }
                let mut npm = Command::new("npm");
                // Not `ci`: that wants the packages of other systems in the lock file too.
                npm.args(["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"]);
                npm.args(["--loglevel", "error"]);
                npm.current_dir(folder);
                npm
            }
            Kit::Rust => {
                let mut cargo = Command::new("cargo");
                cargo
                    .args(["fetch", "--quiet", "--locked", "--manifest-path"])
                    .arg(source.join("Cargo.toml"));
                cargo
            }
        };
        finish(&mut command).map_err(Unready::Missing)
    }

    fn build(self, folder: &Path) -> Result<(), Unready> {
        if self != Kit::Rust {
            return Ok(());
        }
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--quiet", "--locked", "--offline", "--target-dir"]).arg(folder);
        cargo.arg("--manifest-path").arg(self.source().join("Cargo.toml"));
        finish(&mut cargo).map_err(Unready::Broken)
    }

    /// What starts `script`, but for the address of the server.
    pub(crate) fn command(self, folder: &Path, script: &str) -> Command {
        let source = self.source();
        match self {
            Kit::Python => {
                let mut command = Command::new("python3");
                command.env("PYTHONPATH", folder).env("PYTHONDONTWRITEBYTECODE", "1");
                command.arg(source.join(script).with_extension("py"));
                command
            }
            Kit::Node => {
                let mut command = Command::new("node");
                command.env("NODE_PATH", folder.join("node_modules"));
                command.arg(source.join(script).with_extension("cjs"));
                command
            }
            Kit::Rust => {
                let mut command = Command::new(folder.join("debug/pointsman-clients-rust"));
                command.arg(script);
                command
            }
        }
    }

    /// Where its scripts are.
    fn source(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.to_string())
    }

    /// The file that names every version.
    fn pins(self) -> &'static str {
        match self {
            Kit::Python => "requirements.txt",
            Kit::Node => "package-lock.json",
            Kit::Rust => "Cargo.lock",
        }
    }
}

impl fmt::Display for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kit::Python => "python",
            Kit::Node => "node",
            Kit::Rust => "rust",
        })
    }
}

/// Runs it to its end; if that is not good, what it said.
fn finish(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} failed: {}", said.trim().lines().next_back().unwrap_or_default()))
}
