//! What kind of file system a catalog lies on.

use std::path::Path;

/// The type of the file system that holds `folder`; `None` where that cannot be told.
pub fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let kind = mounts
        .lines()
        .filter_map(|line| {
            // proc(5): field 5 is the mount point; the type is the first field after the separator " - ".
            let (fields, rest) = line.split_once(" - ")?;
            let mount_point = fields.split(' ').nth(4)?.replace("\\040", " ");
            folder.starts_with(&mount_point).then(|| (mount_point.len(), rest.split(' ').next().unwrap_or("")))
        })
        .max_by_key(|(length, _)| *length)?
        .1;
    Some(kind.to_owned())
}

/// The type of the network file system that holds `folder`; `None` on a local one, or where that cannot be told.
pub fn network_file_system(folder: &Path) -> Option<String> {
    const NETWORK: [&str; 16] = [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ceph",
        "afs",
        "9p",
        "lustre",
        "gpfs",
        "glusterfs",
        "beegfs",
        "fuse.sshfs",
        "fuse.s3fs",
        "fuse.rclone",
        "fuse.glusterfs",
    ];
    file_system(folder).filter(|kind| NETWORK.contains(&kind.as_str()))
}
