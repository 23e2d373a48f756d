//! Byte offsets of the running kernel's structures, looked up by name in its BTF.

use std::path::Path;

use btf_rs::{Btf, BtfType, Member, Type};
use tracer_common::config::KernelLayout;

use super::KernelError;

/// Where the kernel puts its own type information.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// How deep anonymous structures are searched (mm_struct nests its fields once).
const MAX_DEPTH: usize = 4;

/// The offsets that the BPF programs need.
pub fn kernel_layout() -> Result<KernelLayout, KernelError> {
    let path = Path::new(VMLINUX_BTF);
    let btf = Btf::from_file(path).map_err(|source| KernelError::NoBtf { path: path.into(), source })?;
    let of = |structure, field| offset_of(&btf, structure, field).ok_or(KernelError::NoField { structure, field });
    Ok(KernelLayout {
        task_tgid: of("task_struct", "tgid")?,
        task_group_leader: of("task_struct", "group_leader")?,
        task_start_boottime: of("task_struct", "start_boottime")?,
        task_exit_code: of("task_struct", "exit_code")?,
        task_signal: of("task_struct", "signal")?,
        task_mm: of("task_struct", "mm")?,
        signal_live: of("signal_struct", "live")?,
        mm_arg_start: of("mm_struct", "arg_start")?,
        mm_arg_end: of("mm_struct", "arg_end")?,
        task_fsbase: of("task_struct", "thread")? + of("thread_struct", "fsbase")?,
        spawner_tid: 0,
    })
}

fn offset_of(btf: &Btf, structure: &str, field: &str) -> Option<u32> {
    btf.resolve_types_by_name(structure).ok()?.into_iter().find_map(|ty| match ty {
        Type::Struct(found) => find_member(btf, &found.members, field, 0),
        _ => None,
    })
}

/// Byte offset of `field` among `members`, those of anonymous structures and unions included.
fn find_member(btf: &Btf, members: &[Member], field: &str, depth: usize) -> Option<u32> {
    if depth > MAX_DEPTH {
        return None;
    }
    members.iter().find_map(|member| {
        let name = btf.resolve_name(member).unwrap_or_default();
        let offset = member.bit_offset() / 8;
        if name == field {
            return Some(offset);
        }
        if !name.is_empty() {
            return None;
        }
        match btf.resolve_type_by_id(member.get_type_id()?).ok()? {
            Type::Struct(inner) | Type::Union(inner) => {
                find_member(btf, &inner.members, field, depth + 1).map(|within| offset + within)
            }
            _ => None,
        }
    })
}
