//! Adjustments in their stored form.

use super::{Corrupt, corrupt};
use crate::{
    event::{Action, Adjustment, Adjustments},
    proto::stored as proto,
};

pub(super) fn adjustments_out(adjustments: &Adjustments) -> Vec<proto::Adjustment> {
    let out = |adjustment: &Adjustment| proto::Adjustment {
        field: adjustment.field.as_ref().to_owned(),
        action: action_out(adjustment.action).into(),
        reason: adjustment.reason.as_ref().to_owned(),
    };
    adjustments.iter().map(out).collect()
}

pub(super) fn adjustments_in(stored: Vec<proto::Adjustment>) -> Result<Adjustments, Corrupt> {
    let read = |adjustment: proto::Adjustment| -> Result<_, Corrupt> {
        Ok(Adjustment {
            action: action_in(adjustment.action())?,
            field: adjustment.field.into(),
            reason: adjustment.reason.into(),
        })
    };
    let list = stored.into_iter().map(read);
    Ok(list.collect::<Result<Vec<_>, _>>()?.into())
}

const fn action_out(action: Action) -> proto::AdjustmentAction {
    match action {
        Action::Dropped => proto::AdjustmentAction::Dropped,
        Action::Truncated => proto::AdjustmentAction::Truncated,
        Action::Clamped => proto::AdjustmentAction::Clamped,
        Action::Nulled => proto::AdjustmentAction::Nulled,
        Action::Corrected => proto::AdjustmentAction::Corrected,
    }
}

fn action_in(stored: proto::AdjustmentAction) -> Result<Action, Corrupt> {
    match Action::ALL
        .into_iter()
        .find(|action| action_out(*action) == stored)
    {
        Some(action) => Ok(action),
        None => corrupt("no such adjustment"),
    }
}
