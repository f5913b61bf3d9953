//! Users and their secrets, written or from files. No error shows one.
use crate::error::quoted;
use crate::reader::{Placed, Spot, Table};
use pointsman_core::policy::Credential;
use std::io::Read;
use std::path::Path;

/// Longest secret in bytes; Redis takes more, people do not.
const SECRET_MAX: u64 = 64 << 10;

/// Reads the credential that the three keys make; `None` if none of them is written, or something is wrong.
pub(crate) fn credential(table: &Table<'_>, user: &str, password: &str, file: &str) -> Option<Credential> {
    let name = table.text(user);
    let secret = secret(table, password, file);
    if let Some(Placed { value, spot }) = &name {
        if value.is_empty() {
            let remedy = format!("remove it; the user is `default` without `{user}`");
            table.reader.wrong(*spot, format!("`{user}` is empty"), remedy);
        } else if !table.has(password) && !table.has(file) {
            let (password, file) = (table.said(password), table.said(file));
            let problem = format!("{} has no password", table.said(user));
            table.reader.wrong(*spot, problem, format!("add {password} or {file}"));
        }
    }
    Some(Credential { user: name.map(|n| n.value.into_bytes().into()), secret: secret? })
}

fn secret(table: &Table<'_>, password: &str, file: &str) -> Option<Box<[u8]>> {
    if table.has(password) && table.has(file) {
        let problem = format!("the secret is given twice: {} and {}", table.said(password), table.said(file));
        table.reader.wrong(table.spot(file), problem, "keep one of the two");
        return None;
    }
    let (secret, spot) = match table.text(password) {
        Some(Placed { value, spot }) => (value.into_bytes(), spot),
        None => from_file(table, file)?,
    };
    if secret.is_empty() {
        let remedy = "give a password, or remove the key if there is none";
        table.reader.wrong(spot, "the secret is empty", remedy);
        return None;
    }
    Some(secret.into())
}

fn from_file(table: &Table<'_>, key: &str) -> Option<(Vec<u8>, Spot)> {
    let Placed { value, spot } = table.text(key)?;
    match read_secret(&table.reader.folder.join(&value)) {
        Ok(secret) => Some((secret, spot)),
        Err(why) => {
            let problem = format!("`{key}` {} {why}", quoted(&value));
            table.reader.wrong(
                spot,
                problem,
                "name a file that holds the secret and that this user may read",
            );
            None
        }
    }
}

fn read_secret(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |e: std::io::Error| format!("cannot be read: {e}");
    // A pipe or a device could make us wait for ever, also at a reload.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is not a plain file".into());
    }
    let mut secret = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(SECRET_MAX + 1).read_to_end(&mut secret).map_err(cannot)?;
    if secret.len() as u64 > SECRET_MAX {
        return Err(format!("is longer than {SECRET_MAX} bytes"));
    }
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
    Ok(secret)
}
