//! A configuration from flags: they are put into an empty file, or over a written one, and read as everything else,
//! so that they get the same checks and the same advice.
use crate::error::{Error, Errors, Place};
use crate::keys::Section;
use crate::reader::{Reader, give, give_in, give_service};
use crate::{Config, DEFAULT_PATH, config, read_file, reader};
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// What the command line of `pointsman run` and `check` can say. Lists may have several addresses in one entry,
/// separated by commas.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// `--config`: the file.
    pub config: Option<PathBuf>,
    /// `--listen`: where clients connect. With it, or one of the next four, the flags make the only service.
    pub listen: Vec<String>,
    /// `--sentinel`.
    pub sentinels: Vec<String>,
    /// `--master`: the name that the Sentinels give to the deployment.
    pub master: Option<String>,
    /// `--node`: the nodes of role probes.
    pub nodes: Vec<String>,
    /// `--transparent`: refuse no command.
    pub transparent: bool,
    /// `--workers`; this and the following also go over what a file says.
    pub workers: Option<String>,
    /// `--admin ADDR|off`.
    pub admin: Option<String>,
    /// `--log-level`.
    pub log_level: Option<String>,
    /// `--log-format`.
    pub log_format: Option<String>,
}

/// The name of a service that is made of flags, unless its master's name can be its name.
const SERVICE_NAME: &str = "default";

/// The configuration that the flags make, or that of the file that they name ([`DEFAULT_PATH`] if they name none)
/// with those over it that belong to the process. Only a service that is made of flags takes its passwords from
/// variables (`POINTSMAN_PASSWORD` …, see the reference); a file says `${NAME}`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn from_flags(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Errors> {
    let Some(named) = flags.describes_a_service() else {
        let path = flags.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let text = read_file(path)?;
        let reader = reader(&text, &path.display().to_string(), env);
        return over(flags, &reader, reader.parse()?);
    };
    if flags.config.is_some() {
        let problem = "a service is described by flags and by a file".into();
        let remedy = format!("give either `--config` or `{named}`");
        return Err(Error { place: Place::Input("--config"), problem, remedy }.into());
    }
    let reader = Reader::new("", "", env, PathBuf::new());
    let mut root = DeTable::new();
    give_service(&mut root, flags.service(env));
    over(flags, &reader, root)
}

/// Reads `root` with the process's flags put over it.
fn over<'r>(flags: &Flags, reader: &'r Reader<'r>, mut root: DeTable<'r>) -> Result<Config, Errors> {
    for (name, value) in [("workers", &flags.workers), ("admin", &flags.admin)] {
        if let Some(value) = value {
            give(&mut root, name, value.clone());
        }
    }
    for (name, value) in [("level", &flags.log_level), ("format", &flags.log_format)] {
        if let Some(value) = value {
            give_in(&mut root, "log", name, value.clone());
        }
    }
    config(reader, &root)
}

impl Flags {
    /// One of the flags that describe a service, if any does.
    fn describes_a_service(&self) -> Option<&'static str> {
        let given = [
            ("--listen", !self.listen.is_empty()),
            ("--sentinel", !self.sentinels.is_empty()),
            ("--master", self.master.is_some()),
            ("--node", !self.nodes.is_empty()),
            ("--transparent", self.transparent),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    fn service(&self, env: &dyn Fn(&str) -> Option<String>) -> DeTable<'static> {
        let mut table = DeTable::new();
        let name = self.master.as_deref().filter(|name| crate::service::is_service_name(name));
        give(&mut table, "name", name.unwrap_or(SERVICE_NAME).into());
        for (name, list) in [("listen", &self.listen), ("sentinels", &self.sentinels), ("nodes", &self.nodes)]
        {
            if !list.is_empty() {
                give(&mut table, name, list.join(","));
            }
        }
        if let Some(master) = &self.master {
            give(&mut table, "master", master.clone());
        }
        if self.transparent {
            give(&mut table, "transparent", "true".into());
        }
        for key in Section::Service.keys().filter(|key| key.input.starts_with("POINTSMAN_")) {
            if let Some(value) = env(key.input) {
                give(&mut table, key.name, value);
            }
        }
        table
    }
}
