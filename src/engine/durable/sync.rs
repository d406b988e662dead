//! When what is written is made safe.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// When what is written is made safe against the end of the machine. Against the end of the process it is safe before
/// it is acknowledged in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// Before it is acknowledged: one sync for all that wait.
    #[default]
    Group,
    /// At the latest this long after it was acknowledged.
    Interval(Duration),
    /// When the system does it by itself.
    Os,
}

/// The longest interval.
const LONGEST: u64 = 60_000;

/// A text that names no `Sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(r#"is none of "group", "interval(MS)" with 1 to 60000 milliseconds, and "os""#)]
pub struct SyncError;

impl Sync {
    /// What of the acknowledged events is lost, and by what.
    pub fn loses(self) -> String {
        match self {
            Self::Group => "nothing".into(),
            Self::Interval(every) => format!(
                "the last {} ms before the machine loses power or its system fails; nothing when only the process ends",
                every.as_millis()
            ),
            Self::Os => "what the system has not written by itself, commonly the last 30 s, when the machine loses \
                         power or its system fails; nothing when only the process ends"
                .into(),
        }
    }

    /// How far an acknowledged event is safe.
    pub fn level(self) -> &'static str {
        match self {
            Self::Group => "disk",
            Self::Interval(_) | Self::Os => "system",
        }
    }
}

impl fmt::Display for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group => f.write_str("group"),
            Self::Interval(every) => write!(f, "interval({})", every.as_millis()),
            Self::Os => f.write_str("os"),
        }
    }
}

impl FromStr for Sync {
    type Err = SyncError;

    fn from_str(text: &str) -> Result<Self, SyncError> {
        match text {
            "group" => return Ok(Self::Group),
            "os" => return Ok(Self::Os),
            _ => {}
        }
        let millis = text
            .strip_prefix("interval(")
            .and_then(|rest| rest.strip_suffix(')'));
        let millis = millis.ok_or(SyncError)?;
        match millis.strip_suffix("ms").unwrap_or(millis).trim().parse() {
            Ok(millis) if (1..=LONGEST).contains(&millis) => {
                Ok(Self::Interval(Duration::from_millis(millis)))
            }
            _ => Err(SyncError),
        }
    }
}

impl<'de> Deserialize<'de> for Sync {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| de::Error::custom(format!("{text:?} {error}")))
    }
}

impl Serialize for Sync {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_as_it_was_written_and_nothing_else_is_taken() {
        let interval = |millis| Sync::Interval(Duration::from_millis(millis));
        for sync in [Sync::Group, Sync::Os, interval(1), interval(60_000)] {
            assert_eq!(sync.to_string().parse(), Ok(sync));
        }
        assert_eq!("interval(200ms)".parse(), Ok(interval(200)));
        for text in [
            "",
            "Group",
            "interval",
            "interval()",
            "interval(0)",
            "interval(60001)",
            "interval(-1)",
            "200",
        ] {
            assert_eq!(text.parse::<Sync>(), Err(SyncError), "{text:?}");
        }
    }
}
