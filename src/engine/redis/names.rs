//! What things are called in Redis. Ids from outside are encoded, so that no two names are alike and none says more
//! than it should.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

use crate::{
    engine::{Due, Key},
    event::{BUCKETS, RunId, StreamKey, Tenant, UserId},
    usage::{Day, Model, Series},
};

/// The names under one prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// What every key of a bucket begins with: its hash tag.
    pub(super) fn base(&self, bucket: usize) -> String {
        format!("{{{}:{bucket}}}", self.prefix)
    }

    /// The key of the bucket itself.
    pub(super) fn bucket(&self, bucket: usize) -> String {
        self.base(bucket) + "b"
    }

    /// The index of the streams of a bucket.
    pub(super) fn streams(&self, bucket: usize) -> String {
        self.base(bucket) + "i"
    }

    /// The deadlines of a bucket.
    pub(super) fn deadlines(&self, bucket: usize) -> String {
        self.base(bucket) + "d"
    }

    /// The days of a bucket that have usage.
    pub(super) fn days(&self, bucket: usize) -> String {
        self.base(bucket) + "y"
    }

    /// The sums of a day.
    pub(super) fn sums(&self, bucket: usize, day: &str) -> String {
        format!("{}u{day}", self.base(bucket))
    }

    /// The key of that `kind` of a stream.
    pub(super) fn of(&self, kind: char, stream: &StreamKey) -> String {
        format!("{}{kind}{}", self.base(stream.bucket()), sid(stream))
    }

    /// Where a value of the key store lies.
    pub(super) fn key(&self, key: &Key) -> String {
        match key {
            Key::RunClaim(tenant, run_id) => {
                let name = format!("{}.{}", encode(tenant.as_str()), encode(run_id.as_str()));
                format!("{}kc{name}", self.base(spread(&name)))
            }
            Key::Acks(stream) => format!("{}ka{}", self.base(stream.bucket()), sid(stream)),
            Key::Lease(range) => format!("{}kl{range}", self.base(range % BUCKETS)),
            Key::Missed(bucket) => self.base(bucket % BUCKETS) + "km",
            Key::ContentSecret => self.base(0) + "ks",
        }
    }
}

/// A bucket for what belongs to no user.
fn spread(name: &str) -> usize {
    let hash = blake3::hash(name.as_bytes());
    let bytes = hash.as_bytes();
    usize::from(u16::from_le_bytes([bytes[0], bytes[1]])) % BUCKETS
}

fn encode(text: &str) -> String {
    BASE64.encode(text)
}

fn decode(text: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(text).ok()?).ok()
}

/// The name of a stream.
pub(super) fn sid(stream: &StreamKey) -> String {
    let (tenant, user) = (stream.tenant().as_str(), stream.user().as_str());
    format!("{}.{}", encode(tenant), encode(user))
}

/// The stream of that name.
pub(super) fn stream_of(sid: &str) -> Option<StreamKey> {
    let (tenant, user) = sid.split_once('.')?;
    let tenant = Tenant::new(&decode(tenant)?).ok()?;
    Some(StreamKey::new(tenant, UserId::new(&decode(user)?).ok()?))
}

/// A run among the deadlines of its bucket.
pub(super) fn member(sid: &str, run_id: &RunId) -> String {
    format!("{sid} {}", run_id.as_str())
}

/// The run of that name among the deadlines.
pub(super) fn due_of(member: &str) -> Option<Due> {
    let (sid, run_id) = member.split_once(' ')?;
    Some(Due {
        stream: stream_of(sid)?,
        run_id: RunId::new(run_id).ok()?,
    })
}

/// The name of a day: when it ends.
pub(super) fn day(day: Day) -> String {
    day.end().as_millis().to_string()
}

/// The name of a series within its day.
pub(super) fn series(series: &Series) -> String {
    let part = |text: Option<&str>| match text {
        Some(text) => format!("{}:{text}", text.len()),
        None => "-".to_owned(),
    };
    [
        Some(series.tenant.as_str()),
        series.user.as_ref().map(|id| id.as_str()),
        series.thread_id.as_ref().map(|id| id.as_str()),
        Some(&*series.model.provider),
        Some(&*series.model.model),
    ]
    .map(part)
    .concat()
}

/// The series of `day` of that name.
pub(super) fn series_of(day: Day, name: &str) -> Option<Series> {
    let mut rest = name;
    let mut part = || {
        if let Some(after) = rest.strip_prefix('-') {
            rest = after;
            return Some(None);
        }
        let (length, after) = rest.split_once(':')?;
        let (text, after) = after.split_at_checked(length.parse().ok()?)?;
        rest = after;
        Some(Some(text))
    };
    let [tenant, user, thread, provider, model] = [part()?, part()?, part()?, part()?, part()?];
    let user = user.map(UserId::new).transpose().ok()?;
    let thread_id = thread.map(crate::event::ThreadId::new).transpose().ok()?;
    Some(Series {
        tenant: Tenant::new(tenant?).ok()?,
        day,
        user,
        thread_id,
        model: Model {
            provider: provider?.into(),
            model: model?.into(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ThreadId;

    fn stream(tenant: &str, user: &str) -> StreamKey {
        StreamKey::new(Tenant::new(tenant).unwrap(), UserId::new(user).unwrap())
    }

    #[test]
    fn names_are_read_back_whatever_is_in_them() {
        for (tenant, user) in [
            ("default", "u1"),
            ("a}b{", "c d.e"),
            ("é", "-1:"),
            ("a", "bc"),
        ] {
            let stream = stream(tenant, user);
            let sid = sid(&stream);
            assert!(
                sid.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            );
            assert_eq!(stream_of(&sid), Some(stream.clone()));
            let run_id = RunId::new("r 1.x").unwrap();
            let due = Due {
                stream: stream.clone(),
                run_id,
            };
            assert_eq!(due_of(&member(&sid, &due.run_id)), Some(due));
            for thread in [Some("t:1-"), None] {
                let of = Series {
                    tenant: stream.tenant().clone(),
                    day: "2026-11-22".parse().unwrap(),
                    user: Some(stream.user().clone()),
                    thread_id: thread.map(|id| ThreadId::new(id).unwrap()),
                    model: Model {
                        provider: "".into(),
                        model: "4:m-".into(),
                    },
                };
                assert_eq!(series_of(of.day, &series(&of)), Some(of.clone()));
                assert_eq!(series_of(of.day, &series(&of.folded())), Some(of.folded()));
            }
        }
    }

    #[test]
    fn nothing_from_outside_ends_a_hash_tag() {
        let names = Names::new("emitter");
        let stream = stream("}", "{");
        let key = names.of('m', &stream);
        assert_eq!(key, format!("{{emitter:{}}}mfQ.ew", stream.bucket()));
        assert_eq!(names.key(&Key::Missed(64)), "{emitter:64}km");
        assert_eq!(names.key(&Key::ContentSecret), "{emitter:0}ks");
        let claim = Key::RunClaim(Tenant::new("a}").unwrap(), RunId::new("b{").unwrap());
        let key = names.key(&claim);
        assert_eq!(
            (key.matches('{').count(), key.matches('}').count()),
            (1, 1),
            "{key}"
        );
    }
}
