//! Why Redis refuses the service, and which setting is to be changed.

use redis::RedisError;

use super::Mode;

/// Parts of errors, in the order in which they are looked for, and what to do about them.
const CAUSES: [(&[&str], &str); 15] = [
    (
        &["without any password configured"],
        "a password is set, and Redis has none for this user: unset redis.password_file, or the password in redis.urls",
    ),
    (
        &["NOAUTH", "unauthenticated"],
        "Redis wants a password: set redis.password_file, and redis.username for a user of its own; or put both into \
         redis.urls",
    ),
    (
        &[
            "WRONGPASS",
            "AuthenticationFailed",
            "invalid username-password",
            "Password authentication failed",
        ],
        "Redis refuses the user or the password: check redis.username and redis.password_file, or those in redis.urls",
    ),
    (
        &[
            "NOPERM",
            "ACL failure in script",
            "no permissions",
            "No permissions",
        ],
        "the Redis user lacks a permission: grant what deploy/README.md lists, for keys that begin with redis.prefix; or \
         set another redis.username",
    ),
    (
        &[
            "SELECT is not allowed",
            "DB index is out of range",
            "invalid DB index",
            "Redis server refused to switch database",
        ],
        "redis.urls names a database that the server does not have",
    ),
    (
        &["cluster support disabled"],
        "redis.mode is \"cluster\", and the server is none: set redis.mode to \"single\"",
    ),
    (
        &["unknown command 'SENTINEL", "unknown command `SENTINEL"],
        "redis.mode is \"sentinel\", and the server in redis.urls is none: name the sentinels, or set redis.mode to \
         \"single\"",
    ),
    (
        &["do not know the master"],
        "the sentinels know no master of this name: check redis.master_name",
    ),
    (
        &[
            "unknown command 'FUNCTION",
            "unknown command `FUNCTION",
            "unknown command 'FCALL",
        ],
        "the server has no functions: Redis 7 or newer is needed; where redis.urls name a sentinel, set redis.mode to \
         \"sentinel\"",
    ),
    (
        &["READONLY"],
        "the server is a replica: name the master in redis.urls, or set redis.mode to \"sentinel\"",
    ),
    (
        &["UnknownIssuer", "SelfSigned", "CaUsedAsEndEntity"],
        "the server's certificate is not signed by an authority that is trusted: set redis.ca_file",
    ),
    (
        &["invalid peer certificate"],
        "the server's certificate is not valid for this address: check the host name in redis.urls",
    ),
    (
        &["InvalidContentType", "corrupt message"],
        "the server does not speak TLS: use redis:// in redis.urls",
    ),
    (
        &[
            "lookup address",
            "Connection refused",
            "Network is unreachable",
        ],
        "no server answers at this address: check redis.urls",
    ),
    (
        &[
            "roken pipe",
            "reset by peer",
            "unexpected end of file",
            "unexpectedly terminated",
            "closed",
        ],
        "the server closed the connection: where it expects TLS, use rediss:// in redis.urls",
    ),
];

/// The error, and what to do about it where that is known.
pub(super) fn explained(error: &RedisError) -> String {
    explain(&error.to_string())
}

fn explain(error: &str) -> String {
    let is_of = |parts: &[&str]| parts.iter().any(|part| error.contains(part));
    match CAUSES.iter().find(|(parts, _)| is_of(parts)) {
        Some((_, remedy)) => format!("{error}: {remedy}"),
        None => error.to_owned(),
    }
}

/// What an answer to a call says of the settings, if it says that they are wrong.
pub(super) fn misconfigured(error: &RedisError, mode: Mode) -> Option<String> {
    let text = error.to_string();
    if error.code() == Some("MOVED") && mode != Mode::Cluster {
        return Some(format!(
            "{text}: the server belongs to a cluster: set redis.mode to \"cluster\""
        ));
    }
    let is_denied = ["NOAUTH", "NOPERM", "ACL failure in script"];
    let is_denied = is_denied.iter().any(|word| text.contains(word));
    is_denied.then(|| explain(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_setting() {
        for (error, setting) in [
            ("NOAUTH: Authentication required.", "redis.password_file"),
            (
                "Protocol error: unauthenticated bulk length",
                "redis.password_file",
            ),
            (
                "WRONGPASS: invalid username-password pair",
                "redis.username",
            ),
            (
                "ERR AUTH <password> called without any password configured",
                "unset redis.password_file",
            ),
            (
                "NOPERM: User u has no permissions to run the 'fcall' command",
                "deploy/README.md",
            ),
            (
                "ERR: This instance has cluster support disabled",
                "redis.mode",
            ),
            ("ERR: unknown command 'SENTINEL', with args", "redis.mode"),
            ("ERR: unknown command 'FUNCTION', with args", "redis.mode"),
            ("ERR: DB index is out of range", "redis.urls"),
            ("invalid peer certificate: UnknownIssuer", "redis.ca_file"),
            ("invalid peer certificate: NotValidForName", "redis.urls"),
            (
                "received corrupt message of type InvalidContentType",
                "redis://",
            ),
            ("Connection reset by peer (os error 104)", "rediss://"),
            (
                "READONLY: You can't write against a read only replica.",
                "master",
            ),
        ] {
            let told = explain(error);
            assert!(told.starts_with(error) && told.contains(setting), "{told}");
        }
        assert_eq!(explain("LOADING: loading"), "LOADING: loading");
    }
}
