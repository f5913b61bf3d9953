//! `[[service.client_user]]`: the users that clients authenticate as to Pointsman itself. Passwords are written as their SHA-256; no
//! error shows what stands in their place, for it may be a password.
use crate::error::quoted;
use crate::keys::Section;
use crate::reader::{Placed, Table};
use pointsman_core::users::{Hash, PASSWORDS_MAX, User, Users, hash};
use std::sync::Arc;

/// Most users of one service.
const USERS_MAX: usize = 1024;
/// The longest name in bytes.
const NAME_MAX: usize = 256;
/// How the hash of a password is made.
const HOW: &str = "printf %s PASSWORD | sha256sum";

/// Reads the users of a service.
pub(crate) fn users(table: &Table<'_>) -> Option<Arc<Users>> {
    let written = table.tables(Section::ClientUser);
    if table.has(Section::ClientUser.name()) && !(1..=USERS_MAX).contains(&written.len()) {
        let problem = format!("there are {} users", written.len());
        table.reader.wrong(
            table.spot(Section::ClientUser.name()),
            problem,
            format!("write 1 to {USERS_MAX} [[service.client_user]]"),
        );
    }
    let mut users: Vec<User> = Vec::new();
    for table in &written {
        let Some(Placed { value, spot }) = name(table) else { continue };
        if users.iter().any(|user| *user.name == *value) {
            let problem = format!("there is another user named {}", quoted(&value));
            table.reader.wrong(spot, problem, "write all its passwords in one [[service.client_user]]");
        }
        users.push(User { name: value.into(), passwords: passwords(table).into() });
    }
    Users::new(users)
}

fn name(table: &Table<'_>) -> Option<Placed<String>> {
    if !table.has("name") {
        table.missing("name");
    }
    let name = table.text("name")?;
    let odd = |c: char| c.is_whitespace() || c.is_control();
    if !(1..=NAME_MAX).contains(&name.value.len()) || name.value.contains(odd) {
        let problem = format!("{} cannot be the name of a user", quoted(&name.value));
        let remedy = format!("write 1 to {NAME_MAX} bytes without spaces, such as \"app\"");
        table.reader.wrong(name.spot, problem, remedy);
    }
    Some(name)
}

/// The hashes; none: any password will do.
fn passwords(table: &Table<'_>) -> Vec<Hash> {
    let mut none = false;
    table.flag("nopass", &mut none);
    match (none, table.has("passwords")) {
        (true, false) => return Vec::new(),
        (true, true) => {
            let problem = "`client_user.nopass` has no meaning with `passwords`";
            table.reader.wrong(table.spot("nopass"), problem, "keep one of the two");
        }
        (false, false) => {
            let remedy = format!("add passwords = [\"…\"] with what `{HOW}` says, or nopass = true");
            table.reader.wrong(table.spot("passwords"), "[[service.client_user]] has no `passwords`", remedy);
        }
        (false, true) => {}
    }
    let list = table.list("passwords").unwrap_or_default();
    if list.len() > PASSWORDS_MAX {
        let problem = format!("`client_user.passwords` has {} entries", list.len());
        table.reader.wrong(table.spot("passwords"), problem, format!("write at most {PASSWORDS_MAX}"));
    }
    let mut hashes = Vec::new();
    for Placed { value, spot } in list {
        match hash(&value) {
            Some(hash) => hashes.push(hash),
            None => {
                let remedy = format!("write the 64 hexadecimal digits that `{HOW}` says");
                table.reader.wrong(spot, "this entry of `client_user.passwords` is not a SHA-256", remedy);
            }
        }
    }
    hashes
}
