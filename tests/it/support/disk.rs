//! A disk of a few megabytes that a test can fill: a tmpfs in namespaces of its own, which needs no root where the system
//! lets users have them.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::until;

/// A small disk. It is gone with its holder.
pub(crate) struct Disk {
    holder: Child,
    folder: PathBuf,
}

impl Disk {
    /// Mounts one of so many MiB at `folder`; `None`, with a word on why, where that is not permitted.
    pub(crate) fn mount(folder: &Path, size_mib: u32) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let script = format!("mount -t tmpfs -o size={size_mib}m none \"$0\" && echo mounted && exec cat");
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(File::create(folder.with_extension("mounted")).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut ended = false;
        until("the disk is mounted, or not", || {
            ended = holder.try_wait().unwrap().is_some();
            ended || std::fs::read_to_string(folder.with_extension("mounted")).unwrap().contains("mounted")
        });
        if ended {
            let mut said = String::new();
            std::io::Read::read_to_string(&mut holder.stderr.take().unwrap(), &mut said).unwrap();
            assert!(std::env::var_os("JELLYJAR_TEST_DISKS").is_none(), "no disk could be mounted: {said}");
            let _ = writeln!(std::io::stderr(), "skipped, as no disk can be mounted here: {said}");
            return None;
        }
        Some(Self { holder, folder: folder.to_owned() })
    }

    /// The same command, where the disk is.
    pub(crate) fn enter(&self, command: &Command) -> Command {
        let mut entered = Command::new("nsenter");
        let target = self.holder.id().to_string();
        entered.args(["--target", &target, "--user", "--mount", "--preserve-credentials"]);
        if let Some(folder) = command.get_current_dir() {
            entered.arg(format!("--wdns={}", folder.display())).current_dir(folder);
        }
        entered.arg("--").arg(command.get_program()).args(command.get_args()).env_clear();
        entered.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        entered
    }

    /// The disk's folder, as it is seen from here.
    pub(crate) fn path(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.folder.strip_prefix("/").unwrap())
    }

    /// Fills it, but for so many bytes.
    pub(crate) fn fill_but(&self, left_bytes: u64) {
        let path = self.path().join("filling");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        for piece in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
        let size = file.metadata().unwrap().len();
        file.set_len(size.saturating_sub(left_bytes)).unwrap();
    }

    /// Frees what it was filled with.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.path().join("filling")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
