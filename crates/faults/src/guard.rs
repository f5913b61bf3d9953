//! Sees to it that what was started and made ends with us, even if we are killed with -9.
//!
//! All servers join one process group. A shell outside of it waits for the end of a pipe whose only writer we are; then it
//! kills the group, deletes the namespaces with our prefix, and removes the folder. Should the shell be killed too, the
//! next run finds the namespaces of a process that is no more, and ends what is in them.
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Where `ip netns` keeps its names.
pub(crate) const NAMES: &str = "/run/netns";
const PREFIX: &str = "pointsman-faults-";

const SCRIPT: &str = r#"
trap "" HUP INT TERM
cat >/dev/null
for i in 1 2 3; do kill -9 "-$1" 2>/dev/null || break; sleep 0.1; done
for name in "$2"*; do [ -e "$name" ] && ip netns del "${name##*/}"; done
rm -rf -- "$3"
"#;

/// What guards a run; dropping it ends and removes everything.
#[derive(Debug)]
pub(crate) struct Guard {
    holder: Child,
    shell: Child,
    folder: PathBuf,
    networks: AtomicUsize,
}

impl Guard {
    /// Begins, and removes what a dead process has left.
    pub(crate) fn start() -> io::Result<Self> {
        remove_stale();
        let folder = tempfile::Builder::new().prefix(&prefix_of(std::process::id())).tempdir()?.keep();
        let holder = idle(Command::new("cat")).spawn()?;
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "pointsman-faults-guard"]).arg(holder.id().to_string());
        shell.arg(format!("{NAMES}/{}", prefix_of(std::process::id()))).arg(&folder);
        match idle(shell).spawn() {
            Ok(shell) => Ok(Self { holder, shell, folder, networks: AtomicUsize::new(0) }),
            Err(e) => {
                end(holder);
                Err(e)
            }
        }
    }

    /// Starts a process that ends with us.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let group = i32::try_from(self.holder.id()).expect("process ids are positive and fit pid_t");
        command.process_group(group).spawn()
    }

    /// What the names of the next network begin with.
    pub(crate) fn network_prefix(&self) -> String {
        format!("{}{}-", prefix_of(std::process::id()), self.networks.fetch_add(1, Relaxed))
    }

    /// For configurations and logs; it vanishes with us.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn prefix_of(pid: u32) -> String {
    format!("{PREFIX}{pid}-")
}

fn idle(mut command: Command) -> Command {
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Removes namespaces and folders of processes that are no more, and ends whoever lives in such a namespace.
fn remove_stale() {
    for name in stale(Path::new(NAMES)) {
        let ip = |verb: &str| Command::new("ip").args(["netns", verb, &name]).stderr(Stdio::null()).output();
        let inside = ip("pids").map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        for pid in
            inside.unwrap_or_default().lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?))
        {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = ip("del");
    }
    let temporary = std::env::temp_dir();
    for name in stale(&temporary) {
        let _ = fs::remove_dir_all(temporary.join(name));
    }
}

/// The names in that folder that belong to a process that is no more.
fn stale(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_dead = |pid: u32| !Path::new(&format!("/proc/{pid}")).exists();
    names.filter(|name| owner(name).is_some_and(is_dead)).collect()
}

/// Whose namespace or folder this is, if it is one of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_our_prefix_and_a_process_are_ours() {
        assert_eq!(owner(&(prefix_of(42) + "7-host-1")), Some(42));
        for other in ["pointsman-faults-x-1", "cni-42", "42", "pointsman-faults-"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
