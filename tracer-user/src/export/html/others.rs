//! The lanes of what is no goroutine: processes, their tiers and runtimes, threads, other units of work.

use super::{
    columns::{More, Span},
    drawing::{Drawing, MOST_OTHERS},
};
use crate::{
    correlate::process::ProcessId,
    timeline::{
        process::{self, What},
        thread,
    },
};

impl Drawing<'_> {
    /// What befell a process.
    pub fn life(&mut self, id: ProcessId) {
        let timeline = self.timeline;
        let (mut states, mut events) = (Vec::new(), Vec::new());
        for row in timeline.process_rows(id) {
            let (word, detail) = (process::word(&row), process::detail(&row));
            let told = if detail.is_empty() { word.to_owned() } else { format!("{word} {detail}") };
            match row.what {
                What::Lost { .. } => {}
                What::State { .. } => {
                    let detail = self.detail(row.state.name(), Some(&told), None);
                    states.push(self.span((row.start, row.end), detail, More::Nothing));
                }
                What::Dead { .. } | What::Event(_) => {
                    let detail = self.detail("event", Some(&told), None);
                    events.push(self.span((row.start, row.start), detail, More::Nothing));
                }
            }
        }
        self.group(id, "process");
        self.named_lane("state".to_owned(), &states);
        if !events.is_empty() {
            self.named_lane("events".to_owned(), &events);
        }
        self.tiers(id);
    }

    /// In which detail it was followed when.
    fn tiers(&mut self, id: ProcessId) {
        let replayed = self.timeline.replayed;
        let images = replayed.engine.processes().process(id).images.iter();
        let mut spans = Vec::new();
        for coverage in images.flat_map(|image| replayed.coverage(*image)) {
            let detail = self.detail("tier", Some(&format!("{:?}", coverage.tier)), None);
            spans.push(self.span((coverage.from, coverage.to), detail, More::Nothing));
        }
        if !spans.is_empty() {
            self.named_lane("tier".to_owned(), &spans);
        }
    }

    /// Cycles of its collector, and its pauses.
    pub fn runtime(&mut self, id: ProcessId) {
        let timeline = self.timeline;
        let all = timeline.replayed.engine.processes();
        for (_, track) in timeline.tracks.iter().filter(|(image, _)| all.image(*image).process == id) {
            self.group(id, "runtime");
            let cycle = self.detail("cycle", Some("garbage collection"), None);
            let cycles: Vec<Span> =
                track.cycles.iter().map(|cycle_of| self.span((cycle_of.start, cycle_of.end), cycle, More::Nothing)).collect();
            self.named_lane("garbage collection".to_owned(), &cycles);
            let mut pauses = Vec::with_capacity(track.pauses.len());
            for pause in &track.pauses {
                let detail = self.detail("pause", Some(timeline.replayed.engine.reason(pause.reason)), None);
                pauses.push(self.span((pause.start, pause.end), detail, More::Nothing));
            }
            self.named_lane("stop the world".to_owned(), &pauses);
        }
    }

    pub fn threads(&mut self, id: ProcessId, lines: Vec<&thread::ThreadLine>) {
        if lines.is_empty() {
            return;
        }
        let timeline = self.timeline;
        self.group(id, "threads");
        for line in lines {
            let mut spans = Vec::with_capacity(line.spans.len());
            for (state, span) in thread::states(timeline, line) {
                let reason = span.reason.map(|reason| timeline.replayed.engine.reason(reason));
                let stack = [span.kernel_stack, span.user_stack].into_iter().flatten();
                let ids = stack.filter_map(|stack| self.symbols.stack(span.image, stack)).flat_map(|(ids, _)| ids).collect();
                let stack = self.stack_of(ids);
                let detail = self.detail(state.name(), reason, stack);
                spans.push(self.span((span.start, span.end), detail, More::Nothing));
            }
            let name = line.life.name.map_or(String::new(), |name| format!(" {}", name.text()));
            self.named_lane(format!("tid:{}{name}", line.who.tid), &spans);
        }
    }

    /// Units of work that USDT probes tell of.
    pub fn units(&mut self) {
        let timeline = self.timeline;
        let replayed = timeline.replayed;
        let mut of = None;
        for unit in timeline.units.iter().take(MOST_OTHERS) {
            let id = replayed.engine.processes().image(unit.who.image).process;
            if of.replace(id) != Some(id) {
                self.group(id, "units of work");
            }
            let mut spans = Vec::new();
            for (state, reason, span) in unit.states(replayed) {
                let detail = self.detail(state.name(), reason, None);
                spans.push(self.span((span.start, span.end), detail, More::Nothing));
            }
            self.named_lane(unit.id(replayed), &spans);
        }
    }
}
