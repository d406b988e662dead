//! One run, drawn for a terminal.

use std::{borrow::Cow, fmt::Write as _};

use super::{lanes::Lanes, words};
use crate::{
    cli::{render, text::plain},
    clock::Timestamp,
    proto::v1::{Delivery, GetRunResponse, OpenWait, Position, Run, SourceRefusal, TimelineItem},
};

/// The colour of what deserves a look.
const STRIKING: &str = "\u{1b}[33m";

/// The colour of what is beside the point.
const FAINT: &str = "\u{1b}[2m";

/// `shown` as a person reads it.
pub(super) fn text(
    shown: &GetRunResponse,
    below: &[Run],
    now: Timestamp,
    coloured: bool,
) -> String {
    let run = shown.run.clone().unwrap_or_default();
    let mut page = Page {
        text: String::new(),
        now,
        coloured,
    };
    page.head(&run, &shown.open_children);
    page.timeline(&run, shown);
    page.sub_agents(below);
    page.usage(&run, shown);
    page.refused(&shown.source_refusals);
    if let Some(delivery) = &shown.delivery {
        page.delivery(delivery);
    }
    page.text
}

struct Page {
    text: String,
    now: Timestamp,
    coloured: bool,
}

impl Page {
    fn line(&mut self, line: &str) {
        let _never_fails = writeln!(self.text, "{}", line.trim_end());
    }

    fn section(&mut self, name: &str) {
        let name = self.painted(name, "\u{1b}[1m");
        self.line(&format!("\n{name}"));
    }

    fn painted(&self, text: &str, colour: &str) -> String {
        words::painted(text, colour, self.coloured)
    }

    /// How long ago something was.
    fn ago(&self, at: Option<&prost_types::Timestamp>) -> String {
        let age = self.now.since(words::moment(at));
        format!("{} ago", words::age(age))
    }

    fn head(&mut self, run: &Run, open_children: &[String]) {
        let state = self.painted(words::state(run.state), words::state_colour(run.state));
        self.line(&format!("run {}  {state}", plain(&run.run_id)));
        let of = [
            ("tenant", &run.tenant_id),
            ("user", &run.user_id),
            ("thread", &run.thread_id),
            ("agent", &run.agent_name),
            ("started by", &run.parent_run_id),
        ];
        let of = of.iter().filter(|(_, text)| !text.is_empty());
        let of: Vec<String> = of
            .map(|(name, text)| format!("{name} {}", plain(text)))
            .collect();
        self.line(&format!("  {}", of.join(" · ")));
        let (began, last) = [&run.started_at, &run.last_event_at]
            .map(|at| words::moment(at.as_ref()))
            .into();
        self.line(&format!(
            "  started {} · took {} · {} events · the last {}",
            words::time(began),
            words::span(last.since(began)),
            run.run_sequence,
            self.ago(run.last_event_at.as_ref()),
        ));
        if run.recovered {
            let lost = self.painted("! the store has lost some of its events", STRIKING);
            self.line(&format!("  {lost}"));
        }
        if let Some(source) = &run.source {
            self.line(&format!("  written by {}", words::source(source)));
        }
        for call in &run.open_tool_calls {
            let (tool, id) = (plain(&call.tool_name), plain(&call.tool_call_id));
            let ago = self.ago(call.started_at.as_ref());
            let number = match call.call_sequence {
                0 => String::new(),
                number => format!(" #{number}"),
            };
            self.line(&format!(
                "  open tool call{number} {tool} ({id}), begun {ago}"
            ));
        }
        for wait in &run.open_waits {
            self.open_wait(wait);
        }
        for child in open_children {
            self.line(&format!("  open sub-agent {}", plain(child)));
        }
        if let Some(until) = &run.silent_until {
            let left = words::moment(Some(until)).since(self.now);
            self.line(&format!("  may be silent for another {}", words::age(left)));
        }
    }

    fn open_wait(&mut self, wait: &OpenWait) {
        let of = [
            ("", &wait.wait_id),
            ("for ", &wait.kind),
            ("of tool call ", &wait.tool_call_id),
        ];
        let of = of.iter().filter(|(_, text)| !text.is_empty());
        let of: String = of
            .map(|(name, text)| format!(" {name}{}", plain(text)))
            .collect();
        let ago = self.ago(wait.started_at.as_ref());
        let left = words::moment(wait.expires_at.as_ref()).since(self.now);
        self.line(&format!(
            "  open wait #{}{of}, begun {ago}, expires in {}",
            wait.run_sequence,
            words::age(left)
        ));
    }

    fn timeline(&mut self, run: &Run, shown: &GetRunResponse) {
        self.section("timeline");
        if shown.timeline_truncated {
            let earlier = self.painted("earlier events are left out, or no longer kept", FAINT);
            self.line(&format!("  … {earlier}"));
        }
        let began = words::moment(run.started_at.as_ref());
        let mut lanes = Lanes::default();
        for joined in joined(&shown.timeline) {
            self.item(&joined, began, &mut lanes);
        }
    }

    fn item(
        &mut self,
        (item, count): &(Cow<'_, TimelineItem>, usize),
        began: Timestamp,
        lanes: &mut Lanes,
    ) {
        let at = words::moment(item.recorded_at.as_ref()).since(began);
        let (drawn, tool) = lanes.beside(item);
        let failed = item.r#type == "agent_failed"
            || (item.r#type == "tool_completed" && !item.text.is_empty());
        let colour = match failed {
            true => "\u{1b}[31m",
            false => render::colour(&item.r#type),
        };
        let kind = plain(&item.r#type);
        let fill = " ".repeat(15_usize.saturating_sub(kind.chars().count()));
        let mut line = format!(
            "  {:>9}  {drawn:<3} {}{fill}",
            words::offset(at),
            self.painted(&kind, colour),
        );
        let took = item.duration.and_then(|took| took.try_into().ok());
        let parts = [
            step(item),
            plain(&tool).into_owned(),
            took.map(words::span).unwrap_or_default(),
            plain(&item.text).into_owned(),
        ];
        for part in parts.iter().filter(|part| !part.is_empty()) {
            line += &format!("  {part}");
        }
        if *count > 1 {
            line += &self.painted(&format!("  ({count} joined)"), FAINT);
        }
        if let Some(usage) = &item.usage {
            line += &self.painted(
                &format!("  [{}]", words::usage(usage, item.cost.as_ref())),
                FAINT,
            );
        }
        if let Some(source) = &item.source {
            let colour = if item.run_sequence == 1 {
                FAINT
            } else {
                STRIKING
            };
            line += &self.painted(&format!("  ◂ {}", words::source(source)), colour);
        }
        if !item.violation.is_empty() {
            line += &self.painted(&format!("  ! {}", plain(&item.violation)), STRIKING);
        }
        self.line(&line);
        for adjustment in &item.adjustments {
            let action = words::adjustment(adjustment.action());
            let (field, reason) = (plain(&adjustment.field), plain(&adjustment.reason));
            let mark = format!("! {action} {field}: {reason}");
            self.line(&format!(
                "  {:>9}      {}",
                "",
                self.painted(&mark, STRIKING)
            ));
        }
    }

    fn sub_agents(&mut self, below: &[Run]) {
        if below.is_empty() {
            return;
        }
        self.section("sub-agents");
        // Those that started first come first, as in the timeline.
        for run in below.iter().rev() {
            let state = self.painted(words::state(run.state), words::state_colour(run.state));
            let [began, last] =
                [&run.started_at, &run.last_event_at].map(|at| words::moment(at.as_ref()));
            let used = run.usage.as_ref().map(words::totals);
            self.line(&format!(
                "  {}  {}  {state}  {}  {}",
                plain(&run.run_id),
                plain(&run.agent_name),
                words::span(last.since(began)),
                used.unwrap_or_default(),
            ));
        }
    }

    fn usage(&mut self, run: &Run, shown: &GetRunResponse) {
        let Some(totals) = &run.usage else { return };
        self.section("usage");
        for of_model in &shown.usage {
            let names = [plain(&of_model.provider), plain(&of_model.model)];
            let named = names.iter().filter(|name| !name.is_empty());
            let named = named.map(AsRef::as_ref).collect::<Vec<&str>>().join("/");
            let named = if named.is_empty() { "unnamed" } else { &named };
            let totals = of_model.totals.unwrap_or_default();
            self.line(&format!("  {named}  {}", words::totals(&totals)));
        }
        if shown.usage.len() > 1 {
            self.line(&format!("  in all  {}", words::totals(totals)));
        }
    }

    fn refused(&mut self, refused: &[SourceRefusal]) {
        if refused.is_empty() {
            return;
        }
        self.section("refused sources");
        for refused in refused {
            let named = [&refused.refused, &refused.owner]
                .map(|source| words::source(&source.clone().unwrap_or_default()));
            let [source, owner] = named;
            let reason = self.painted(&plain(&refused.reason), STRIKING);
            let events = if refused.count == 1 {
                "event"
            } else {
                "events"
            };
            let ago = self.ago(refused.last_at.as_ref());
            self.line(&format!(
                "  {source}  {reason}  {} {events}, the last {ago}; {owner} owned the run",
                refused.count
            ));
        }
    }

    fn delivery(&mut self, delivery: &Delivery) {
        self.section("delivery");
        self.line(&format!(
            "  stored up to {}",
            position(delivery.stored_up_to.as_ref())
        ));
        for reader in &delivery.connections {
            let transport = words::transport(reader.transport());
            let client = match reader.client_id.as_str() {
                "" => String::new(),
                client => format!(" of {}", plain(client)),
            };
            let (id, ago) = (
                plain(&reader.connection_id),
                self.ago(reader.connected_at.as_ref()),
            );
            let at = position(reader.position.as_ref());
            self.line(&format!(
                "  {transport} {id}{client}, connected {ago}, has {at}"
            ));
        }
        for ack in &delivery.acknowledgements {
            let (client, at) = (plain(&ack.client_id), position(ack.position.as_ref()));
            let ago = self.ago(ack.acknowledged_at.as_ref());
            let covers = if ack.covers_run {
                ": all of the run"
            } else {
                ""
            };
            self.line(&format!("  {client} acknowledged {at} {ago}{covers}"));
        }
    }
}

fn step(item: &TimelineItem) -> String {
    let step = item.step_number.map(|step| format!("[{step}]"));
    step.unwrap_or_default()
}

fn position(position: Option<&Position>) -> String {
    position.map_or_else(
        || "nothing".to_owned(),
        |position| format!("{}-{}", plain(&position.epoch), position.offset),
    )
}

/// The timeline with neighbouring pieces of one text joined, and the number of pieces in each item. The message id and
/// the role separate texts; a piece without a role continues the text before it. Pieces that carry more than text stay
/// alone.
fn joined(timeline: &[TimelineItem]) -> Vec<(Cow<'_, TimelineItem>, usize)> {
    let is_piece =
        |item: &TimelineItem| matches!(item.r#type.as_str(), "text_delta" | "thinking_delta");
    let says_more = |item: &TimelineItem| {
        item.source.is_some()
            || item.usage.is_some()
            || !item.violation.is_empty()
            || !item.adjustments.is_empty()
    };
    let is_same_text = |before: &TimelineItem, item: &TimelineItem| {
        before.r#type == item.r#type
            && before.message_id == item.message_id
            && (item.role.is_empty() || before.role == item.role)
    };
    let mut lines: Vec<(Cow<'_, TimelineItem>, usize)> = Vec::new();
    for item in timeline {
        match lines.last_mut() {
            Some((before, count))
                if is_piece(item)
                    && is_same_text(before, item)
                    && !says_more(item)
                    && before.usage.is_none()
                    && before.violation.is_empty()
                    && before.adjustments.is_empty() =>
            {
                *count += 1;
                let shown = before.text.chars().count();
                if shown < TEXT {
                    before
                        .to_mut()
                        .text
                        .extend(item.text.chars().take(TEXT - shown));
                }
            }
            _ => lines.push((Cow::Borrowed(item), 1)),
        }
    }
    lines
}

/// How many characters of a joined text are shown.
const TEXT: usize = 200;

#[cfg(test)]
mod tests;
