//! Sees to it that what a sandbox started ends with it, even if we are killed with -9 in the middle of a line.
//!
//! All servers join one process group, held by a process that does nothing (a group needs a living leader to be joined).
//! A second one, outside the group, waits for the end of a pipe whose only writer we are: however we die, the kernel
//! closes it, and then the group is killed and the folder removed. A plain drop takes the same way.
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Kills until the group is gone, a few times at most: once for a server that was being forked when we died; and a child
/// that nobody has waited for counts as a member too.
const SCRIPT: &str = r#"
trap "" HUP INT TERM
cat >/dev/null
for i in 1 2 3; do kill -9 "-$1" 2>/dev/null || break; sleep 0.1; done
rm -rf -- "$2"
"#;

/// The process group of a sandbox and what guards it; dropping it kills the group and removes the folder.
#[derive(Debug)]
pub(super) struct Watchdog {
    holder: Child,
    guard: Child,
}

impl Watchdog {
    /// Begins to guard `dir`.
    pub(super) fn start(dir: &Path) -> io::Result<Self> {
        let mut holder = idle(Command::new("cat")).spawn()?;
        let mut sh = Command::new("sh");
        sh.args(["-c", SCRIPT, "pointsman-sandbox-watchdog"]).arg(holder.id().to_string()).arg(dir);
        match idle(sh).spawn() {
            Ok(guard) => Ok(Self { holder, guard }),
            Err(e) => {
                end(&mut holder);
                Err(e)
            }
        }
    }

    /// Starts `command` as one that dies with the sandbox.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let group = i32::try_from(self.holder.id()).expect("process ids are positive and fit pid_t");
        command.process_group(group).spawn()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        end(&mut self.holder);
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// A leader of its own group, out of reach of the terminal's Ctrl-C, that waits on a pipe of ours.
fn idle(mut command: Command) -> Command {
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Kills a child and takes note of its death; harmless if it is dead already.
pub(super) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
