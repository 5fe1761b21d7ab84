//! The software CPU against QEMU's translator, on the same kernel, image, command line and workloads.

use crate::guest::{Folder, Guest, Setup, append};
use crate::stats::Sample;
use crate::table::Table;
use ft_pair_machine::image::{Overrides, open_guest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

const QEMU: &str = "qemu-system-x86_64";
const PATIENCE: Duration = Duration::from_secs(900);
/// The last line of the kernel before the first user process.
const FIRST_PROCESS: &str = "Run /init as init process";

/// Workloads by name, with their sizes: as they are and quick.
const WORKLOADS: [(&str, u32, u32); 9] = [
    ("xorshift", 100, 20),
    ("shell", 100, 20),
    ("md5", 100, 20),
    ("sha256", 50, 10),
    ("copy-mov", 1024, 256),
    ("copy-rep", 1024, 256),
    ("gzip", 20, 4),
    ("float", 500, 100),
    ("forkexec", 500, 100),
];

/// Who runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Runner {
    FtPair,
    /// QEMU's own deterministic mode: the peer.
    Icount,
    Plain,
}

impl Runner {
    fn command(self, folder: &Folder, append: &str) -> Command {
        if self == Self::FtPair {
            return folder.ft_pair(&["run", "guest.img", "--mem", "256M", "--append", append]);
        }
        let mut command = Command::new(QEMU);
        command.args(["-accel", "tcg,thread=single", "-cpu", "Westmere", "-m", "256", "-smp", "1"]);
        if self == Self::Icount {
            command.args(["-icount", "shift=0"]);
        }
        command.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        command.args(["-kernel", "kernel", "-initrd", "initrd", "-append", append]);
        command.args(["-drive", "file=guest.img,format=raw,if=virtio,cache=writeback"]);
        command.args(["-device", "virtio-rng-pci"]);
        command.current_dir(folder.path(""));
        command
    }
}

/// Seconds of one boot's workloads.
fn once(
    setup: &Setup,
    runner: Runner,
    workloads: &[(&str, u32)],
) -> anyhow::Result<BTreeMap<String, f64>> {
    let folder = Folder::new(setup)?;
    let words: Vec<String> =
        workloads.iter().map(|(name, size)| format!("{name}={size}")).collect();
    if runner != Runner::FtPair {
        let source = open_guest(&folder.path("guest.img"), &Overrides::default())?;
        std::fs::write(folder.path("kernel"), &source.kernel)?;
        std::fs::write(folder.path("initrd"), source.initrd.unwrap_or_default())?;
    }
    let mut guest = Guest::start(&mut runner.command(&folder, &append(&words.join(","))))?;
    let mut seconds = BTreeMap::new();
    let booted = guest.line(FIRST_PROCESS, PATIENCE)?;
    seconds.insert("boot".to_owned(), booted.duration_since(guest.began).as_secs_f64());
    for (name, _) in workloads {
        seconds.insert((*name).to_owned(), guest.workload(name, PATIENCE)?);
    }
    Ok(seconds)
}

/// Runs everybody in turn, `rounds` times.
pub fn compare(
    setup: &Setup,
    rounds: usize,
    quick: bool,
    only: Option<&str>,
) -> anyhow::Result<Table> {
    let wanted = |name: &str| only.is_none_or(|only| only.split(',').any(|o| o == name));
    let workloads: Vec<(&str, u32)> = WORKLOADS
        .iter()
        .filter(|(name, ..)| wanted(name))
        .map(|(name, full, short)| (*name, if quick { *short } else { *full }))
        .collect();
    let installed = Command::new(QEMU).arg("--version").output().is_ok_and(|o| o.status.success());
    let runners: &[Runner] = match installed {
        true => &[Runner::FtPair, Runner::Icount, Runner::Plain],
        false => &[Runner::FtPair],
    };
    let mut seconds: BTreeMap<(String, Runner), Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for runner in runners {
            for (name, value) in once(setup, *runner, &workloads)? {
                seconds.entry((name, *runner)).or_default().push(value);
            }
        }
    }
    let columns =
        ["workload", "ft-pair s", "icount s", "tcg s", "icount / ft-pair", "tcg / ft-pair"];
    let mut table = Table::new("Software CPU against QEMU's translator", &columns);
    for name in std::iter::once("boot").chain(workloads.iter().map(|(name, _)| *name)) {
        let median = |runner| {
            let values = seconds.get(&(name.to_owned(), runner)).cloned().unwrap_or_default();
            Sample::new(values).median()
        };
        let [ours, icount, plain] = [Runner::FtPair, Runner::Icount, Runner::Plain].map(median);
        let size = workloads.iter().find(|(n, _)| *n == name).map_or(0, |(_, size)| *size);
        let name = if size == 0 { name.to_owned() } else { format!("{name} {size}") };
        // NaN is null in JSON.
        let mut row: Vec<Value> = vec![json!(name)];
        row.extend([ours, icount, plain, icount / ours, plain / ours].map(|v| json!(v)));
        table.row(row);
    }
    table.note(format!(
        "Seconds by the host's clock, medians of {rounds}; a ratio above 1 means that ft-pair is faster."
    ));
    if !installed {
        table.note(format!("{QEMU} is not installed: nothing to compare with."));
    }
    Ok(table)
}
