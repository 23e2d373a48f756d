//! Where the records of classic tracepoints keep their fields, as tracefs describes them: what serves where there is no BTF.
//!
//! Source: `Documentation/trace/events.rst`, "Event formats".

use std::{fs, path::Path};

use tracer_common::config::ClassicLayout;

use super::KernelError;

/// The layouts of every tracepoint that [`super::facts`] may attach to, as this kernel has them.
pub fn layout(tracefs: &Path) -> Result<ClassicLayout, KernelError> {
    let of = |event: &'static str, field: &'static str| {
        let path = tracefs.join("events").join(event).join("format");
        let format = fs::read_to_string(path).map_err(KernelError::io("the description of a tracepoint"))?;
        offset_of(&format, field).ok_or(KernelError::NoField { structure: event, field })
    };
    Ok(ClassicLayout {
        newtask_pid: of("task/task_newtask", "pid")?,
        newtask_clone_flags: of("task/task_newtask", "clone_flags")?,
        exec_filename: of("sched/sched_process_exec", "filename")?,
        exec_old_pid: of("sched/sched_process_exec", "old_pid")?,
        free_pid: of("sched/sched_process_free", "pid")?,
        signal_sig: of("signal/signal_generate", "sig")?,
        signal_code: of("signal/signal_generate", "code")?,
        signal_pid: of("signal/signal_generate", "pid")?,
        signal_group: of("signal/signal_generate", "group")?,
        signal_result: of("signal/signal_generate", "result")?,
        switch_prev_state: of("sched/sched_switch", "prev_state")?,
        switch_next_pid: of("sched/sched_switch", "next_pid")?,
        waking_pid: of("sched/sched_waking", "pid")?,
        _pad: 0,
    })
}

/// The offset of a field: of a line like `field:pid_t next_pid; offset:56; size:4; signed:1;`.
fn offset_of(format: &str, field: &str) -> Option<u32> {
    format.lines().find_map(|line| {
        let mut parts = line.trim().strip_prefix("field:")?.split(';');
        let declared = parts.next()?.split_whitespace().next_back()?;
        let name = declared.split('[').next()?;
        if name != field {
            return None;
        }
        parts.next()?.trim().strip_prefix("offset:")?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that fields are found by their whole name, arrays among them, and that nonsense has none.
    #[test]
    fn offsets() {
        let format = "name: sched_switch\nID: 3\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
                      \tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;\n\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;\n\
                      \tfield:__data_loc char[] filename;\toffset:12;\tsize:4;\tsigned:0;\n\nprint fmt: \"pid;\"\n";
        assert_eq!(offset_of(format, "prev_pid"), Some(24));
        assert_eq!(offset_of(format, "prev_comm"), Some(8));
        assert_eq!(offset_of(format, "filename"), Some(12));
        assert_eq!(offset_of(format, "pid"), None);
        assert_eq!(offset_of("field:pid_t pid;offset:x;", "pid"), None);
        assert_eq!(offset_of("field:;\nfield", "pid"), None);
    }
}
