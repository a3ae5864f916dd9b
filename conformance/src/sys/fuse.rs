// SPDX-License-Identifier: MIT OR Apache-2.0

//! A file system of one file that never answers the end of a descriptor.
//!
//! Its root is the file. The kernel asks for the operation flush at each close(2), and waits for the
//! answer in a way that no signal interrupts.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};

const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;

/// Bytes of the header of a request.
const HEADER: usize = 40;
/// A regular file that all may read and write.
const MODE: u32 = libc::S_IFREG | 0o666;

/// The file system, from its mounting to its end, with which all requests fail that wait.
pub struct Deaf {
    path: PathBuf,
    end: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Deaf {
    /// Mounts one. Needs root.
    pub fn mount() -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.expect("no FUSE");
        let path = std::env::temp_dir().join(format!("conformance-fuse-{}", std::process::id()));
        File::create(&path).unwrap();
        let options = format!(
            "fd={},rootmode={MODE:o},user_id=0,group_id=0",
            device.as_raw_fd()
        );
        let [at, options] =
            [path.to_str().unwrap(), &options].map(|text| CString::new(text).unwrap());
        let kind = c"fuse".as_ptr();
        // SAFETY: The strings outlive the call.
        let result = unsafe { libc::mount(kind, at.as_ptr(), kind, 0, options.as_ptr().cast()) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        let end = Arc::new(AtomicBool::new(false));
        let is_end = end.clone();
        let server = std::thread::spawn(move || serve(device, &is_end));
        Self {
            path,
            end,
            server: Some(server),
        }
    }

    /// Opens the file.
    pub fn open(&self) -> File {
        let file = File::options().read(true).write(true).open(&self.path);
        file.unwrap()
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        // The device is closed with the thread, and so all requests fail.
        self.end.store(true, Ordering::Relaxed);
        self.server.take().map(JoinHandle::join);
        let at = CString::new(self.path.to_str().unwrap()).unwrap();
        // SAFETY: The string outlives the call.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Answers all requests except for flush.
fn serve(mut device: File, end: &AtomicBool) {
    let mut request = vec![0; 1 << 17];
    let patience = Timespec::try_from(Duration::from_millis(10)).unwrap();
    while !end.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(&device, PollFlags::IN)];
        if poll(&mut ready, Some(&patience)) != Ok(1) {
            continue;
        }
        let Ok(n) = device.read(&mut request) else {
            return;
        };
        assert!(n >= HEADER, "a request of {n} bytes");
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let (result, answer) = match word(4) {
            FLUSH => continue,
            INIT => (0, init()),
            GETATTR => (0, attributes()),
            OPEN => (0, vec![0; 16]),
            RELEASE => (0, Vec::new()),
            _ => (-libc::ENOSYS, Vec::new()),
        };
        let mut reply = ((16 + answer.len()) as u32).to_ne_bytes().to_vec();
        reply.extend(result.to_ne_bytes());
        reply.extend(&request[8..16]);
        reply.extend(answer);
        // Refused for requests that want no answer.
        let _ = device.write(&reply);
    }
}

/// Returns the answer to INIT: version 7.31, writes of a page.
fn init() -> Vec<u8> {
    let mut answer = [0_u32; 16];
    answer[..2].copy_from_slice(&[7, 31]);
    answer[5] = 4096;
    answer.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Returns the answer to GETATTR: an empty file of one link.
fn attributes() -> Vec<u8> {
    let mut answer = vec![0; 104];
    // The number of the inode, the mode, the links.
    answer[16] = 1;
    answer[76..80].copy_from_slice(&MODE.to_ne_bytes());
    answer[80] = 1;
    answer
}
