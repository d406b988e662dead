//! What is asked of the runs that are known.

use emitter::{
    clock::Timestamp,
    event::{ContentHash, RunSequence, ToolCallId, ToolName},
};

use super::{Call, Run, User};

impl Run {
    pub(super) fn repeated(
        &self,
        id: &ToolCallId,
        tool: &ToolName,
        arguments: Option<ContentHash>,
    ) -> Option<&Call> {
        self.calls.iter().find(|call| {
            let unknown = call.arguments.is_none() || arguments.is_none();
            call.id == *id && call.tool == *tool && (unknown || call.arguments == arguments)
        })
    }

    pub(super) fn call(
        &self,
        id: Option<&ToolCallId>,
        tool: Option<&ToolName>,
        call: Option<RunSequence>,
    ) -> Option<&Call> {
        if let Some(sequence) = call {
            return self.calls.iter().find(|call| call.sequence == sequence);
        }
        if id.is_none() && tool.is_none() {
            return None;
        }
        self.calls.iter().find(|call| {
            id.is_none_or(|id| call.id == *id) && tool.is_none_or(|tool| call.tool == *tool)
        })
    }
}

impl User {
    pub(super) fn above(&self, run: &str) -> Vec<String> {
        match &self.runs[run].parent {
            Some(parent) => [vec![parent.clone()], self.above(parent)].concat(),
            None => Vec::new(),
        }
    }

    pub(super) fn children<'a>(&'a self, run: &'a str) -> impl Iterator<Item = &'a String> {
        let open = self.runs.iter().filter(|(_, run)| run.ended.is_none());
        let children = open.filter(move |(_, child)| child.parent.as_deref() == Some(run));
        children.map(|(id, _)| id)
    }

    pub(super) fn below(&self, run: &str) -> Vec<String> {
        let below = |child: &String| [vec![child.clone()], self.below(child)].concat();
        self.children(run).flat_map(below).collect()
    }

    /// Until when the run may be silent: its own time since the last sign of life of itself or anything below it, or
    /// its wait, or as long as anything below it may.
    pub(super) fn deadline(&self, id: &str) -> Timestamp {
        let run = &self.runs[id];
        let below = self.below(id);
        let signs = below.iter().map(|below| self.runs[below].last_sign);
        let last_sign = signs.max().unwrap_or_default().max(run.last_sign);
        let children = self.children(id).map(|child| self.deadline(child));
        let waits = run.waits.iter().map(|wait| wait.expires_at).max();
        let own = (last_sign + run.silence).max(waits.unwrap_or_default());
        children.max().unwrap_or_default().max(own)
    }
}
