//! Worlds in which clients authenticate to the worker instead of to the servers.
use pointsman_core::users::{User, Users, hash};
use std::sync::Arc;

/// The users of the model servers, and the SHA-256 of their secrets.
const USERS: [(&str, &str); 3] = [
    ("default", "0a9f34c448a4bb29e6f296695654e31d047d2e886791dfd83c120f848b518065"),
    ("alice", "0c848abb03307b06cf70cd4e29c157dc81af5e94ab3eb1d0c59a120269572376"),
    ("bob", "9f03ef1533a68d2f506f81ef463c1183a82a6bd40e45613f36e6fe1889cf1b99"),
];

/// The same users as the worker's own.
pub(super) fn users() -> Option<Arc<Users>> {
    let user = |(name, digits): (&str, &str)| User {
        name: name.into(),
        passwords: [hash(digits).expect("64 digits")].into(),
    };
    Users::new(USERS.into_iter().map(user).collect())
}
