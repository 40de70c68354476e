//! Which mounts can never change? A file that is mounted alone stays the one that it was, whatever becomes of its volume.
//!
//! Kubernetes does so for `subPath`: the mount leads into the generation of the volume that was current when the
//! container started, and no later one is ever seen.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where the kernel lists the mounts of this process (proc(5)).
const LIST: &str = "/proc/self/mountinfo";

/// The mounts of this process that stay as they are.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    frozen: Vec<PathBuf>,
}

impl Mounts {
    /// Asks the kernel; none if it does not tell.
    pub(super) fn read() -> Mounts {
        std::fs::read_to_string(LIST).map(|list| Mounts::of(&list)).unwrap_or_default()
    }

    /// Of a list as the kernel writes it.
    fn of(list: &str) -> Mounts {
        let mounts = list.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(3);
            Some((plain(fields.next()?), PathBuf::from(plain(fields.next()?))))
        });
        let frozen = mounts.filter(|(root, _)| leads_into_a_generation(root)).map(|(_, place)| place);
        Mounts { frozen: frozen.collect() }
    }

    /// The frozen mounts that are, hold, or stand below one of `paths`; each once.
    pub(super) fn frozen_among(&self, paths: &[PathBuf]) -> BTreeSet<&Path> {
        if self.frozen.is_empty() {
            return BTreeSet::new();
        }
        // The kernel lists places without links.
        let paths: Vec<PathBuf> = paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
        self.frozen_at(&paths)
    }

    fn frozen_at(&self, paths: &[PathBuf]) -> BTreeSet<&Path> {
        let concerns = |place: &&Path| paths.iter().any(|path| path.starts_with(place) || place.starts_with(path));
        self.frozen.iter().map(PathBuf::as_path).filter(concerns).collect()
    }
}

/// Whether what is mounted is one generation of a volume, such as `/..2026_11_20_10_00_00.123/tls.crt`.
fn leads_into_a_generation(root: &str) -> bool {
    let generation =
        |part: &str| part.strip_prefix("..").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    root.split('/').any(generation)
}

/// Blanks, tabs, line ends and backslashes are written in octal.
fn plain(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_generations_are_frozen() {
        let mounts = Mounts::of(
            "36 35 98:0 / / rw,noatime shared:1 - ext4 /dev/sda1 rw\n\
             41 36 0:52 / /etc/whole rw - tmpfs tmpfs rw\n\
             42 36 0:52 /..2026_11_20_10_00_00.1/tls.crt /etc/web/tls.crt ro - tmpfs tmpfs rw\n\
             43 36 8:1 /var/lib/kubelet/pods/1/volumes/kubernetes.io~configmap/ca/..2026_11_20/sub /etc/my\\040ca ro - ext4 /dev/sda1 rw\n\
             nonsense\n",
        );
        for (path, expected) in [
            ("/etc/whole/tls.crt", None),
            ("/etc/web", Some("/etc/web/tls.crt")),
            ("/etc/web/tls.key", None),
            ("/etc/my ca/ca.crt", Some("/etc/my ca")),
        ] {
            let expected = expected.map(Path::new).into_iter().collect();
            assert_eq!(mounts.frozen_at(&[path.into()]), expected, "{path}");
        }
    }
}
