//! The programs that are compared: finding them, installing what is missing, building our own, and their versions.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Services are kept from starting by a policy-rc.d for the time of the installation (Debian policy 9.3.3). Arguments
/// are the packages.
const INSTALL_SCRIPT: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy" || exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@"
"#;

/// A program of others, and the Debian package that has it.
pub(crate) struct Foreign {
    /// Names that it goes by, the preferred first.
    pub(crate) names: &'static [&'static str],
    pub(crate) package: &'static str,
}

pub(crate) const REDIS: Foreign =
    Foreign { names: &["redis-server", "valkey-server"], package: "redis-server" };
pub(crate) const HAPROXY: Foreign = Foreign { names: &["haproxy"], package: "haproxy" };
pub(crate) const NUTCRACKER: Foreign = Foreign { names: &["nutcracker"], package: "nutcracker" };

impl Foreign {
    /// Finds the program, or installs it where that is known how to do. The error is one line that says what to install.
    pub(crate) fn find_or_install(&self) -> Result<PathBuf, String> {
        if let Some(path) = find(self.names) {
            return Ok(path);
        }
        let name = self.names[0];
        if !is_debian() {
            return Err(format!("{name} is missing: install the package that has it ({})", self.package));
        }
        eprintln!("{name} is missing: installing the package {}", self.package);
        let installed = apt_install(self.package).map_err(|error| format!("apt-get did not run: {error}"))?;
        find(self.names).filter(|_| installed).ok_or_else(|| {
            format!("{name} is missing and could not be installed: apt-get install {}", self.package)
        })
    }
}

/// The first of the programs that is in `PATH`, or where daemons lie on systems that leave those folders out of it.
pub(crate) fn find(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from)).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.is_file())
}

fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is_one = release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split(' '))
        .any(|id| id == "debian" || id == "ubuntu");
    is_one && find(&["apt-get"]).is_some()
}

fn apt_install(package: &str) -> io::Result<bool> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("sh")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("sh");
        sudo
    };
    command.args(["-c", INSTALL_SCRIPT, "sh", package]).stdout(Stdio::null());
    Ok(command.status()?.success())
}

/// Builds our own binary as users get it, and says where it is.
pub(crate) fn build_pointsman() -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "-p", "pointsman", "--message-format=json-render-diagnostics"]);
    if let Some(package) = env::var_os("CARGO_MANIFEST_DIR") {
        command.current_dir(package);
    }
    let built = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo did not run: {error}; give the binary with --pointsman"))?;
    if !built.status.success() {
        return Err("cargo build --release -p pointsman failed; give the binary with --pointsman".to_owned());
    }
    let executable = String::from_utf8_lossy(&built.stdout).lines().find_map(executable_in);
    executable.ok_or_else(|| "cargo built no binary named pointsman".to_owned())
}

/// The path in the line of cargo's JSON that announces our binary.
fn executable_in(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_ours = message["target"]["name"] == "pointsman" && message["reason"] == "compiler-artifact";
    if is_ours { message["executable"].as_str().map(PathBuf::from) } else { None }
}

/// The first line that the program says about its version.
pub(crate) fn version(program: &Path, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output() else { return "unknown version".to_owned() };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    said.lines().next().filter(|line| !line.is_empty()).unwrap_or("unknown version").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_that_exists_is_found() {
        assert!(find(&["no-such-program-anywhere", "sh"]).unwrap().ends_with("sh"));
        assert_eq!(find(&["no-such-program-anywhere"]), None);
    }

    #[test]
    fn our_binary_is_picked_out_of_what_cargo_says() {
        let library = r#"{"reason":"compiler-artifact","target":{"name":"pointsman"},"executable":null}"#;
        let other = r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}"#;
        let ours =
            r#"{"reason":"compiler-artifact","target":{"name":"pointsman"},"executable":"/t/pointsman"}"#;
        let found: Vec<_> =
            [library, "not json", other, ours].into_iter().filter_map(executable_in).collect();
        assert_eq!(found, [PathBuf::from("/t/pointsman")]);
    }
}
