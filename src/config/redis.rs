//! The settings of the engine on Redis.

use std::{fmt, path::PathBuf, time::Duration};

use serde::Deserialize;

/// Where Redis is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub struct Redis {
    pub mode: RedisMode,
    pub urls: Vec<RedisUrl>,
    pub master_name: String,
    pub username: String,
    pub password_file: PathBuf,
    pub ca_file: PathBuf,
    pub prefix: String,
    pub wait_replicas: usize,
    #[serde(with = "humantime_serde")]
    pub wait_timeout: Duration,
    pub min_replicas: usize,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub clock_tolerance: Duration,
}

/// How Redis is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub enum RedisMode {
    Single,
    Sentinel,
    Cluster,
}

/// The URL of a server, printed without its credentials.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// All of it.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// What is wrong with it, if anything. The value is shown without its credentials.
    fn problem(&self) -> Option<String> {
        let host = ["redis://", "rediss://"]
            .iter()
            .find_map(|scheme| self.0.strip_prefix(scheme))
            .map(|rest| rest.rsplit_once('@').map_or(rest, |(_, host)| host));
        if host.is_some_and(|host| !host.is_empty() && !host.starts_with([':', '/'])) {
            return None;
        }
        let shown = match (self.0.contains("://"), self.0.rsplit_once('@')) {
            (false, Some((_, host))) => format!("[set]@{host}"),
            _ => self.to_string(),
        };
        Some(format!(
            "{shown:?} is not a URL: expected redis://HOST:PORT, or rediss:// over TLS, such as \
             rediss://user:password@redis.example:6379"
        ))
    }
}

/// `text` without what stands before the host, if it is a URL that has something there.
pub(super) fn masked(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://[set]@{host}"),
        _ => text.to_owned(),
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.0))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How many replicas can be asked for.
const REPLICAS: usize = 16;

impl Redis {
    /// Tells `report` if the engine's answers, of up to four calls of Redis, have less time than those.
    pub(super) fn check_within(
        &self,
        engine_timeout: Duration,
        report: &mut dyn FnMut(&str, String),
    ) {
        if engine_timeout < 5 * self.timeout {
            let least = humantime::format_duration(5 * self.timeout);
            let problem = format!("must be at least {least}, five times redis.timeout");
            report("limits.engine_timeout", problem);
        }
    }

    fn have_one_scheme(&self) -> bool {
        let is_tls = |url: &RedisUrl| url.0.starts_with("rediss://");
        let first = self.urls.first().map(is_tls);
        self.urls.iter().all(|url| Some(is_tls(url)) == first)
    }

    /// Tells `report` of every value outside its bounds: key, problem.
    pub(super) fn check(&self, report: &mut dyn FnMut(&str, String)) {
        for (index, url) in self.urls.iter().enumerate() {
            if let Some(problem) = url.problem() {
                report(&format!("redis.urls.{index}"), problem);
            }
        }
        match (self.mode, self.urls.len()) {
            (_, 0) => report("redis.urls", "is required".into()),
            (RedisMode::Single, 2..) => report("redis.urls", "a single server has one".into()),
            (RedisMode::Cluster, _) if !self.have_one_scheme() => {
                let problem = "all of a cluster are reached over TLS (rediss://), or none";
                report("redis.urls", problem.into());
            }
            _ => {}
        }
        if self.mode == RedisMode::Sentinel && self.master_name.is_empty() {
            report(
                "redis.master_name",
                "is required: sentinels are asked for it".into(),
            );
        }
        let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_');
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.chars().all(plain) {
            report(
                "redis.prefix",
                "must be 1 to 64 of a-z, 0-9, - and _".into(),
            );
        }
        let counts = [
            ("redis.wait_replicas", self.wait_replicas),
            ("redis.min_replicas", self.min_replicas),
        ];
        for (key, count) in counts.into_iter().filter(|(_, count)| *count > REPLICAS) {
            report(key, format!("{count} is more than {REPLICAS}"));
        }
        let spans = [
            ("redis.wait_timeout", self.wait_timeout),
            ("redis.timeout", self.timeout),
        ];
        let fits = Duration::from_millis(100)..=Duration::from_secs(60);
        for (key, span) in spans.into_iter().filter(|(_, span)| !fits.contains(span)) {
            let span = humantime::format_duration(span);
            report(key, format!("{span} is not within 100ms to 1m"));
        }
        let tolerated = Duration::from_secs(5)..=Duration::from_secs(60 * 60);
        if !tolerated.contains(&self.clock_tolerance) {
            let span = humantime::format_duration(self.clock_tolerance);
            let problem = format!("{span} is not within 5s to 1h");
            report("redis.clock_tolerance", problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_printed_without_its_credentials() {
        for (text, shown) in [
            ("redis://h:1", "redis://h:1"),
            ("redis://u:p@h:1", "redis://[set]@h:1"),
            ("rediss://:p@ss@h:1/2", "rediss://[set]@h:1/2"),
        ] {
            let url = RedisUrl(text.into());
            let printed = (url.to_string(), format!("{url:?}"));
            assert_eq!(printed, (shown.to_owned(), shown.to_owned()));
        }
    }

    #[test]
    fn what_is_no_address_of_redis_is_told() {
        for (text, fine) in [
            ("redis://127.0.0.1:6379", true),
            ("rediss://u:p@redis.example:6380/1", true),
            ("redis://[::1]:6379", true),
            ("127.0.0.1:6379", false),
            ("http://127.0.0.1:6379", false),
            ("redis://", false),
            ("redis://u:p@", false),
            ("redis://:6379", false),
            ("", false),
        ] {
            let url = RedisUrl(text.into());
            assert_eq!(url.problem().is_none(), fine, "{text}");
        }
        for (text, shown) in [
            ("127.0.0.1:6379", "127.0.0.1:6379"),
            ("user:secret@127.0.0.1", "[set]@127.0.0.1"),
            ("http://user:secret@127.0.0.1", "http://[set]@127.0.0.1"),
        ] {
            let problem = RedisUrl(text.into()).problem().unwrap();
            let want = format!("{shown:?} is not a URL: expected redis://HOST:PORT");
            assert!(problem.starts_with(&want), "{problem}");
        }
    }
}
