//! The configuration: the file as written, or the flags, turned into a [`Config`] that cannot be wrong; what is
//! doubtful about one ([`warnings`]), what it means ([`explain`]), and the difference of two ([`diff`]).
//!
//! The way of a file: TOML with places ([`toml::de::DeTable`]) → typed values by the table of keys ([`keys`], read by
//! `reader`) → services (`service`), whose checks need the places once more → checks across services (here). Nothing
//! stops at the first mistake. Not serde: it stops at the first one, and knows neither ranges nor documentation, so
//! that every key would be described twice.

mod address;
mod allow;
mod diff;
mod error;
mod explain;
mod flags;
pub mod keys;
mod reader;
mod rules;
mod secret;
mod service;
mod substitute;
mod units;
mod users;
mod warnings;

pub use address::Listen;
pub use diff::{Change, Changed, diff};
pub use error::{Error, Errors, Place};
pub use explain::explain;
pub use flags::{Flags, from_flags};
pub use service::Service;
pub use units::parse_duration;
pub use warnings::{Warning, warnings};

use keys::Section;
use pointsman_core::topology::snapshot::ServiceId;
use reader::{Reader, Table};
use service::Draft;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use substitute::Env;
use toml::de::DeTable;

/// Where the file is if nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/pointsman/pointsman.toml";

/// A configuration. One that exists is right: only this crate makes them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The services, at least one, in the order of the file.
    pub services: Vec<Service>,
    /// Threads that serve clients; 0: as many as there are cores.
    pub workers: usize,
    /// Where health, status and metrics are served; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// How the log is written.
    pub log: Log,
    /// Where events are kept.
    pub events: Events,
    /// How long a process that was told to stop lets clients finish.
    pub shutdown_grace: Duration,
    /// The number that the next new service gets; see [`diff`].
    next_id: u32,
}

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Log {
    /// The least important lines that are written: `error`, `warn`, `info`, `debug` or `trace`.
    pub level: &'static str,
    /// In which form.
    pub format: LogFormat,
}

/// Where events are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Events {
    /// In which file.
    pub file: EventsFile,
    /// Most bytes of it.
    pub size_max: u64,
}

/// The file of the events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventsFile {
    /// In the folder for what outlives the process, if there is one.
    Auto,
    /// In none.
    Off,
    /// Here.
    At(PathBuf),
}

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Reads a file; `env` gives the variables of the environment.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Errors> {
    parse(&read_file(path)?, &path.display().to_string(), env)
}

/// Reads the text of a file that is called `file`: so it is named in errors, and paths in it are relative to its
/// folder.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, file: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Errors> {
    let reader = reader(text, file, env);
    let root = reader.parse()?;
    config(&reader, &root)
}

/// Longest file in bytes.
const FILE_MAX: u64 = 4 << 20;
/// Most services; [`ServiceId`] has room for more, over the life of a process.
const SERVICES_MAX: usize = 1024;

fn read_file(path: &Path) -> Result<String, Errors> {
    let name: Arc<str> = path.display().to_string().into();
    let whole = |problem: String, remedy: &str| {
        Errors::from(Error { place: Place::Path(name.clone()), problem, remedy: remedy.into() })
    };
    let cannot = |e: std::io::Error| {
        whole(
            format!("cannot be read: {e}"),
            "name a readable file with `--config`, or describe a service with `--listen`",
        )
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(whole(format!("is longer than {FILE_MAX} bytes"), "is it a configuration file?"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let place = reader::place(&name, e.as_bytes(), e.utf8_error().valid_up_to());
        Error { place, problem: "this is not UTF-8".into(), remedy: "save the file as UTF-8".into() }.into()
    })
}

fn reader<'a>(text: &'a str, file: &str, env: &'a Env<'a>) -> Reader<'a> {
    let folder = Path::new(file).parent().unwrap_or(Path::new("")).into();
    Reader::new(file, text, env, folder)
}

fn config<'r>(reader: &'r Reader<'r>, root: &'r DeTable<'r>) -> Result<Config, Errors> {
    let table = Table::new(reader, Section::Process, root, 0);
    let mut config = process(&table);
    let tables = table.tables(Section::Service);
    if !(1..=SERVICES_MAX).contains(&tables.len()) {
        let problem = format!("there are {} services", tables.len());
        reader.wrong(table.spot("service"), problem, format!("write 1 to {SERVICES_MAX} [[service]]"));
        return reader.finish(config);
    }
    let drafts: Vec<Draft> = tables.iter().zip(0..).map(|(t, id)| service::read(t, ServiceId(id))).collect();
    refuse_the_same_twice(reader, &config, &drafts);
    config.next_id = u32::try_from(drafts.len()).expect("there are at most SERVICES_MAX");
    config.services = drafts.into_iter().map(|draft| draft.service).collect();
    reader.finish(config)
}

/// What belongs to no service.
fn process(table: &Table<'_>) -> Config {
    let mut config = Config {
        services: Vec::new(),
        workers: 0,
        admin: Some((Ipv4Addr::LOCALHOST, 9400).into()),
        log: Log { level: "info", format: LogFormat::Human },
        events: Events { file: EventsFile::Auto, size_max: 8 << 20 },
        shutdown_grace: Duration::from_secs(30),
        next_id: 0,
    };
    table.number("workers", &mut config.workers);
    if let Some(admin) = table.text("admin") {
        match address::parse_bind(&admin.value) {
            _ if admin.value == "off" => config.admin = None,
            Ok(address) => config.admin = Some(address),
            Err((problem, remedy)) => {
                table.reader.wrong(admin.spot, problem, format!("{remedy}, or \"off\""))
            }
        }
    }
    table.duration("shutdown_grace", &mut config.shutdown_grace);
    for log in table.tables(Section::Log) {
        config.log.level = log.word("level").unwrap_or(config.log.level);
        if log.word("format") == Some("json") {
            config.log.format = LogFormat::Json;
        }
    }
    for events in table.tables(Section::Events) {
        if let Some(file) = events.text("file") {
            if file.value.is_empty() {
                table.reader.wrong(
                    file.spot,
                    "`events.file` is empty",
                    "write \"off\", or the path of a file",
                );
            }
            config.events.file = match file.value.as_str() {
                "auto" => EventsFile::Auto,
                "off" => EventsFile::Off,
                path => EventsFile::At(table.reader.folder.join(path)),
            };
        }
        events.number("size", &mut config.events.size_max);
    }
    config
}

fn refuse_the_same_twice(reader: &Reader<'_>, config: &Config, drafts: &[Draft]) {
    let mut bound: Vec<(Listen, String)> = Vec::new();
    bound.extend(config.admin.map(|admin| (Listen::Tcp(admin), "`admin`".into())));
    for (i, draft) in drafts.iter().enumerate() {
        let Draft { service, name, listen } = draft;
        if !service.name.is_empty() && drafts[..i].iter().any(|d| d.service.name == service.name) {
            let problem = format!("there is another service named \"{}\"", service.name);
            reader.wrong(*name, problem, "give each service its own name");
        }
        for (listen, spot) in service.listen.iter().zip(listen) {
            if let Some((other, whose)) = bound.iter().find(|(other, _)| other.collides(listen)) {
                let problem = format!("{whose} has \"{other}\" already");
                reader.wrong(*spot, problem, "give each listener its own address");
            }
            bound.push((listen.clone(), format!("service \"{}\"", service.name)));
        }
    }
}
