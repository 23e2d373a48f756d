//! Text of `/proc`: paths in it are named by whoever mounts and maps.

use tracer_user::{container, kernel::gate, snapshot::process};

pub fn all(input: &[u8]) {
    let _ = process::first_mapping_of(input, 1234, "/srv/my program");
    let text = String::from_utf8_lossy(input);
    let systems = gate::file_systems(&text);
    assert!(systems.iter().all(|system| !system.points.is_empty()));
    let _ = gate::control_groups(&text);
    for container in text.lines().filter_map(container::of_path) {
        assert!(container.id.is_some() || container.pod_uid.is_some());
        assert!(container.id.is_none_or(|id| id.len() == 64));
    }
}
