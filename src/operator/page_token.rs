//! Where a list of runs goes on: opaque to whoever asks for its pages.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message as _;

use crate::{
    clock::Timestamp,
    engine::RunPlace,
    event::{RunId, StreamKey, Tenant, UserId},
    proto::v1,
};

/// What tells the list that a token belongs to from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filters(String);

impl Filters {
    /// The filters of `request`, which is about `tenant`, or every one.
    pub(super) fn of(request: &v1::ListRunsRequest, tenant: Option<&Tenant>) -> Self {
        let filters = v1::ListRunsRequest {
            tenant_id: tenant.map_or_else(String::new, |tenant| tenant.as_str().to_owned()),
            page_size: 0,
            page_token: String::new(),
            ..request.clone()
        };
        let hash = blake3::hash(&filters.encode_to_vec());
        Self(hash.to_hex().chars().take(16).collect())
    }

    /// The token for what follows `place`. No id has a line's end in it.
    pub(super) fn token(&self, place: &RunPlace) -> String {
        let text = format!(
            "{}\n{}\n{}\n{}\n{}",
            self.0,
            place.started_at.as_millis(),
            place.stream.tenant().as_str(),
            place.stream.user().as_str(),
            place.run_id.as_str(),
        );
        URL_SAFE_NO_PAD.encode(text)
    }

    /// The place that `token` was made for, if it is one of this list.
    pub(super) fn place(&self, token: &str) -> Option<RunPlace> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let parts: Vec<&str> = text.split('\n').collect();
        let [filters, started_at, tenant, user, run_id] = parts[..] else {
            return None;
        };
        if filters != self.0 {
            return None;
        }
        let (tenant, user) = (Tenant::new(tenant).ok()?, UserId::new(user).ok()?);
        Some(RunPlace {
            started_at: Timestamp::from_millis(started_at.parse().ok()?),
            stream: StreamKey::new(tenant, user),
            run_id: RunId::new(run_id).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> RunPlace {
        let (tenant, user) = (Tenant::new("t").unwrap(), UserId::new("é u").unwrap());
        RunPlace {
            started_at: Timestamp::from_millis(1_800_000_000_123),
            stream: StreamKey::new(tenant, user),
            run_id: RunId::new("r1").unwrap(),
        }
    }

    #[test]
    fn a_token_leads_back_to_its_place_whatever_the_size_of_the_pages() {
        let request = |page_size| v1::ListRunsRequest {
            user_id: "u".into(),
            page_size,
            ..Default::default()
        };
        let token = Filters::of(&request(2), None).token(&place());
        assert_eq!(
            Filters::of(&request(3), None).place(&token),
            Some(place()),
            "{token}"
        );
    }

    #[test]
    fn a_token_of_another_list_leads_nowhere() {
        let request = v1::ListRunsRequest::default();
        let tenant = Tenant::new("t").unwrap();
        let filters = Filters::of(&request, Some(&tenant));
        let token = filters.token(&place());
        let other = v1::ListRunsRequest {
            user_id: "u".into(),
            ..Default::default()
        };
        assert_eq!(Filters::of(&other, Some(&tenant)).place(&token), None);
        assert_eq!(Filters::of(&request, None).place(&token), None);
        for odd in ["", "?", "YQ", &token[1..], &token[..token.len() - 4]] {
            assert_ne!(filters.place(odd), Some(place()), "{odd}");
        }
        for odd in ["", "?", "YQ"] {
            assert_eq!(filters.place(odd), None, "{odd}");
        }
    }
}
