//! A real server on a Unix socket in a folder of its own, asked in RESP2. It ends when it is dropped.
use super::{Described, DescribedKeys, Result};
use pointsman_core::command::{Begin, Find, KeySpec};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_MAX: Duration = Duration::from_secs(10);
const ANSWER_MAX: Duration = Duration::from_secs(10);

pub(super) struct Server {
    process: Child,
    folder: TempDir,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    List(Vec<Value>),
    Error(String),
    Nil,
}

impl Server {
    /// Starts it, and waits until it answers.
    pub(super) fn start(program: &str) -> Result<Server> {
        let folder = tempfile::tempdir()?;
        let process = Command::new(program)
            .args(["--port", "0", "--unixsocket", "socket", "--save", "", "--daemonize", "no"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("{program} does not start: {error}"))?;
        let mut server = Server { process, folder };
        let until = Instant::now() + START_MAX;
        while server.ask(&["PING"]).is_err() {
            if let Some(status) = server.process.try_wait()? {
                return Err(format!("{program} ended: {status}").into());
            }
            if Instant::now() > until {
                return Err(format!("{program} does not answer").into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Sends one request, and reads its reply.
    pub(super) fn ask(&self, args: &[&str]) -> Result<Value> {
        let mut stream = UnixStream::connect(self.folder.path().join("socket"))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        write!(stream, "*{}\r\n", args.len())?;
        for arg in args {
            write!(stream, "${}\r\n{arg}\r\n", arg.len())?;
        }
        read(&mut BufReader::new(stream))
    }

    /// Such as `redis 7.0.15`.
    pub(super) fn version(&self) -> Result<String> {
        let info = self.ask(&["INFO", "server"])?.text()?;
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
        // Valkey also has a redis_version: the one that it is compatible with.
        match (field("valkey_version:"), field("redis_version:")) {
            (Some(version), _) => Ok(format!("valkey {version}")),
            (None, Some(version)) => Ok(format!("redis {version}")),
            _ => Err("INFO server has no version".into()),
        }
    }

    /// All commands and subcommands.
    pub(super) fn commands(&self) -> Result<Vec<Described>> {
        let mut described = Vec::new();
        for command in self.ask(&["COMMAND"])?.list()? {
            describe(command, &mut described)?;
        }
        // Redis 6.2 has no such command.
        if let Value::List(docs) = self.ask(&["COMMAND", "DOCS"])? {
            since(&docs, &mut described)?;
        }
        described.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(described)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; nothing more can be done either way.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An element of COMMAND's reply: name, arity, flags, first key, last key, step, ACL categories, and since Redis 7 tips,
/// key specifications and subcommands.
fn describe(command: Value, described: &mut Vec<Described>) -> Result<()> {
    let mut fields = command.list()?;
    let newer: Vec<Value> = fields.drain(7..).collect();
    let [name, arity, flags, first, last, step, categories] = Value::List(fields).fields()?;
    let words = |list: Value| list.list()?.into_iter().map(Value::text).collect::<Result<Vec<_>>>();
    let flags = words(flags)?;
    let (keys, subcommands) = match <[Value; 3]>::try_from(newer) {
        Ok([_, specs, subcommands]) => (described_keys(specs.list()?)?, subcommands.list()?),
        Err(_) => (first_and_last(first.number()?, last.number()?, step.number()?, &flags)?, vec![]),
    };
    described.push(Described {
        name: name.text()?.to_ascii_uppercase(),
        arity: arity.number()?.try_into()?,
        flags,
        categories: words(categories)?,
        container: !subcommands.is_empty(),
        keys,
        since: None,
    });
    subcommands.into_iter().try_for_each(|subcommand| describe(subcommand, described))
}

/// The versions in which commands came, from the reply to COMMAND DOCS: names and maps.
fn since(docs: &[Value], described: &mut [Described]) -> Result<()> {
    for pair in docs.chunks_exact(2) {
        let name = pair[0].clone().text()?.to_ascii_uppercase();
        // Modules need not say it.
        if let (Ok(since), Some(known)) =
            (pair[1].get("since"), described.iter_mut().find(|d| d.name == name))
        {
            known.since = Some(since.text()?);
        }
        if let Ok(Value::List(subcommands)) = pair[1].get("subcommands") {
            since(&subcommands, described)?;
        }
    }
    Ok(())
}

/// What Redis 6.2 says of keys: the first, the last and the step; `movablekeys` if that is not all.
fn first_and_last(first: i64, last: i64, step: i64, flags: &[String]) -> Result<DescribedKeys> {
    if flags.iter().any(|flag| flag == "movablekeys") {
        return Ok(DescribedKeys::Incomplete);
    }
    if first == 0 {
        return Ok(DescribedKeys::Specs(vec![]));
    }
    let last = if last < 0 { last } else { last - first };
    let find = Find::Range { last: last.try_into()?, step: step.try_into()?, limit: 0 };
    Ok(DescribedKeys::Specs(vec![KeySpec { begin: Begin::At(first.try_into()?), find }]))
}

fn described_keys(specs: Vec<Value>) -> Result<DescribedKeys> {
    let specs = specs.into_iter().map(key_spec).collect::<Result<Option<Vec<_>>>>()?;
    Ok(specs.map_or(DescribedKeys::Incomplete, DescribedKeys::Specs))
}

/// `None` if it is `unknown` or `incomplete`.
fn key_spec(spec: Value) -> Result<Option<KeySpec>> {
    let flags = spec.get("flags")?.list()?;
    if flags.contains(&Value::Text("incomplete".into())) {
        return Ok(None);
    }
    let (begin, find) = (spec.get("begin_search")?, spec.get("find_keys")?);
    let (b, f) = (begin.get("spec")?, find.get("spec")?);
    let begin = match begin.get("type")?.text()?.as_str() {
        "index" => Begin::At(b.get("index")?.number()?.try_into()?),
        "keyword" => Begin::After {
            word: b.get("keyword")?.text()?.leak(),
            from: b.get("startfrom")?.number()?.try_into()?,
        },
        _ => return Ok(None),
    };
    let find = match find.get("type")?.text()?.as_str() {
        "range" => Find::Range {
            last: f.get("lastkey")?.number()?.try_into()?,
            step: f.get("keystep")?.number()?.try_into()?,
            limit: f.get("limit")?.number()?.try_into()?,
        },
        "keynum" => Find::Counted {
            count: f.get("keynumidx")?.number()?.try_into()?,
            first: f.get("firstkey")?.number()?.try_into()?,
            step: f.get("keystep")?.number()?.try_into()?,
        },
        _ => return Ok(None),
    };
    Ok(Some(KeySpec { begin, find }))
}

fn read(from: &mut impl BufRead) -> Result<Value> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.strip_suffix("\r\n").ok_or_else(|| std::io::Error::from(ErrorKind::UnexpectedEof))?;
    let (kind, rest) = line.split_at_checked(1).ok_or("an empty line")?;
    Ok(match kind {
        "+" => Value::Text(rest.into()),
        "-" => Value::Error(rest.into()),
        ":" => Value::Number(rest.parse()?),
        "$" | "*" if rest == "-1" => Value::Nil,
        "*" => Value::List((0..rest.parse::<usize>()?).map(|_| read(from)).collect::<Result<_>>()?),
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>()? + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            Value::Text(String::from_utf8(bytes)?)
        }
        _ => return Err(format!("not RESP2: {line}").into()),
    })
}

impl Value {
    pub(super) fn text(self) -> Result<String> {
        match self {
            Value::Text(text) => Ok(text),
            other => Err(format!("not a string: {other:?}").into()),
        }
    }

    fn number(self) -> Result<i64> {
        match self {
            Value::Number(number) => Ok(number),
            other => Err(format!("not a number: {other:?}").into()),
        }
    }

    pub(super) fn list(self) -> Result<Vec<Value>> {
        match self {
            Value::List(list) => Ok(list),
            other => Err(format!("not an array: {other:?}").into()),
        }
    }

    fn fields<const N: usize>(self) -> Result<[Value; N]> {
        self.list()?.try_into().map_err(|list| format!("not {N} fields: {list:?}").into())
    }

    /// A field of a map that RESP2 shows as an array.
    fn get(&self, name: &str) -> Result<Value> {
        let Value::List(list) = self else { return Err(format!("not a map: {self:?}").into()) };
        let pair = list.chunks_exact(2).find(|pair| pair[0] == Value::Text(name.into()));
        pair.map(|pair| pair[1].clone()).ok_or_else(|| format!("no {name} in {self:?}").into())
    }
}
