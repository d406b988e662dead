//! Tool calls as lines beside a timeline: each open call has a lane from its begin to its end.

use crate::proto::v1::TimelineItem;

/// How many calls are drawn at once; further ones are only named.
const LANES: usize = 6;

/// The calls that are open at a point of the timeline.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    open: Vec<Option<Call>>,
}

#[derive(Debug)]
struct Call {
    id: String,
    /// The number of its begin, where the server is new enough to say it.
    sequence: Option<u64>,
    tool: String,
}

impl Call {
    /// Whether `item` is about this call. Several open calls may have one id.
    fn is_of(&self, item: &TimelineItem) -> bool {
        match (self.sequence, item.call_sequence) {
            (Some(own), Some(its)) => own == its,
            _ => self.id == item.tool_call_id,
        }
    }
}

impl Lanes {
    /// What is drawn beside `item`, and the name of the tool that it is about.
    pub(super) fn beside(&mut self, item: &TimelineItem) -> (String, String) {
        let lane = self.lane(item);
        let of_lane = |call: &Call| call.tool.clone();
        let known = lane.and_then(|lane| self.open.get(lane)?.as_ref());
        let tool = match item.tool_name.as_str() {
            "" => known.map(of_lane).unwrap_or_default(),
            name => name.to_owned(),
        };
        let mark = match item.r#type.as_str() {
            "tool_executing" => '┌',
            "tool_completed" => '└',
            _ => '├',
        };
        let drawn = self
            .open
            .iter()
            .enumerate()
            .map(|(index, call)| match call {
                Some(_) if Some(index) == lane => mark,
                Some(_) => '│',
                None => ' ',
            });
        let drawn: String = drawn.collect();
        if let Some(ended) = lane.filter(|_| item.r#type == "tool_completed") {
            self.close(ended);
        }
        (drawn.trim_end().to_owned(), tool)
    }

    /// The lane of the call that `item` is about; one that begins gets the first that is free.
    fn lane(&mut self, item: &TimelineItem) -> Option<usize> {
        if item.tool_call_id.is_empty() {
            return None;
        }
        let is = |call: &Option<Call>| call.as_ref().is_some_and(|call| call.is_of(item));
        let there = self.open.iter().position(is);
        if there.is_some() || item.r#type != "tool_executing" {
            return there;
        }
        let free = self.open.iter().position(Option::is_none);
        let lane = free.unwrap_or(self.open.len());
        let call = Call {
            id: item.tool_call_id.clone(),
            sequence: item.call_sequence,
            tool: item.tool_name.clone(),
        };
        match self.open.get_mut(lane) {
            Some(place) => *place = Some(call),
            None if lane < LANES => self.open.push(Some(call)),
            None => return None,
        }
        Some(lane)
    }

    fn close(&mut self, lane: usize) {
        if let Some(place) = self.open.get_mut(lane) {
            *place = None;
        }
        while self.open.last().is_some_and(Option::is_none) {
            self.open.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: &str, call: &str) -> TimelineItem {
        TimelineItem {
            r#type: kind.into(),
            tool_call_id: call.into(),
            tool_name: if kind == "tool_executing" {
                "search".into()
            } else {
                String::new()
            },
            ..TimelineItem::default()
        }
    }

    #[test]
    fn calls_that_overlap_stand_side_by_side() {
        let mut lanes = Lanes::default();
        let cases = [
            ("agent_started", "", "", ""),
            ("tool_executing", "a", "┌", "search"),
            ("tool_executing", "b", "│┌", "search"),
            ("agent_thinking", "", "││", ""),
            ("tool_completed", "a", "└│", "search"),
            ("tool_progress", "b", " ├", "search"),
            ("tool_executing", "c", "┌│", "search"),
            ("tool_completed", "b", "│└", "search"),
            ("tool_completed", "c", "└", "search"),
            ("tool_completed", "unknown", "", ""),
            ("agent_completed", "", "", ""),
        ];
        for (kind, call, drawn, tool) in cases {
            let want = (drawn.to_owned(), tool.to_owned());
            assert_eq!(lanes.beside(&item(kind, call)), want, "{kind} {call}");
        }
    }

    #[test]
    fn calls_of_one_id_have_lanes_of_their_own() {
        let of = |kind: &str, sequence| TimelineItem {
            call_sequence: Some(sequence),
            ..item(kind, "create")
        };
        let mut lanes = Lanes::default();
        for (item, drawn) in [
            (of("tool_executing", 2), "┌"),
            (of("tool_executing", 3), "│┌"),
            // A begin that is repeated.
            (of("tool_executing", 2), "┌│"),
            (of("tool_progress", 3), "│├"),
            (of("tool_completed", 3), "│└"),
            (of("tool_completed", 2), "└"),
        ] {
            assert_eq!(lanes.beside(&item).0, drawn, "{item:?}");
        }
    }

    #[test]
    fn the_width_is_bounded() {
        let mut lanes = Lanes::default();
        for call in 0..100 {
            let (drawn, _) = lanes.beside(&item("tool_executing", &call.to_string()));
            assert!(drawn.chars().count() <= LANES, "{drawn}");
        }
    }
}
