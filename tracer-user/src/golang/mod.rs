//! STUB
use std::fs::File;
use crate::recording::contract::*;
#[derive(Clone, Copy, Debug)]
pub enum Hook { Birth, Exit, Park, ParkAbort, Wake }
impl Hook { pub fn name(self) -> &'static str { "" } }
#[derive(Clone, Debug)]
pub struct HookSite { pub hook: Hook, pub function: String, pub address: u64, pub file_offset: u64, pub instruction: String, pub emulated: bool, pub register: u8, pub note: String, pub needs_zf: Option<bool> }
pub struct MissingHook { pub hook: Hook, pub reason: String }
pub struct Plan { pub sites: Vec<HookSite>, pub missing: Vec<MissingHook> }
impl Plan { pub fn complete(&self) -> bool { true } }
pub struct GoBinary {}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct GolangError;
impl GoBinary {
    pub fn open(_f: &File) -> Result<Self, GolangError> { Err(GolangError) }
    pub fn version(&self) -> &str { "" }
    pub fn module(&self) -> &str { "" }
    pub fn layout(&self) -> Result<tracer_common::config::GoLayout, GolangError> { Err(GolangError) }
    pub fn wait_reasons(&self) -> &'static [&'static str] { &[] }
    pub fn hchan_lock(&self) -> Option<u64> { None }
    pub fn plan(&self, _t: Tier) -> Plan { Plan { sites: vec![], missing: vec![] } }
    pub fn symbolize(&self, _a: u64, _u: CodeUse) -> Vec<Frame> { vec![] }
}
pub fn looks_like_go(_f: &File) -> std::io::Result<bool> { Ok(false) }
pub fn what_is(_f: &File) -> std::io::Result<String> { Ok(String::new()) }
