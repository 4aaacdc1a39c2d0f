//! Power cuts under load, at each tier in turn.
use std::{
    process::Command,
    time::{Duration, Instant},
};

use integrator_api::Qos;

use crate::{
    full,
    sandbox::{chain::Chain, disk::Disk, told, traffic::Traffic, wait_for},
    spread,
};

/// Bytes of a tier's disk: they are not taken before something is written.
const DISK_BYTES: u64 = 2 << 30;
/// Calls a second.
const RATE: u64 = 600;
/// Tiers: proxy, MLM, application server.
const TIERS: usize = 3;

/// Stops a node where it is, every thread of it; what the kernel does for it goes on.
fn freeze(chain: &Chain, tier: usize) {
    let pid = chain.nodes[tier].process.as_ref().unwrap().child.id().to_string();
    let told = Command::new("kill").args(["-STOP", &pid]).status().unwrap();
    assert!(told.success());
}

/// Waits until the tier takes messages again.
fn takes(chain: &Chain, tier: usize) {
    let before = chain.account(tier).taken;
    wait_for("messages to be taken", || (chain.account(tier).taken > before + 20).then_some(()));
}

// QUE-2, MLM-3, APS-1: what was accepted is on a disk that was synced, at each tier.
#[test]
fn power_cuts_at_each_tier_lose_nothing_and_double_nothing() {
    let _turn = crate::turn();
    let disks: Vec<Disk> = (0..TIERS).map_while(|_| Disk::make(DISK_BYTES)).collect();
    if disks.len() < TIERS {
        return;
    }
    let places: Vec<_> = disks.iter().map(Disk::path).collect();
    let places: Vec<_> = places.iter().map(|path| path.as_path()).collect();
    let mut chain = Chain::start_three(&places, "<store keep-free-bytes=\"1048576\"/>");
    let traffic = Traffic::start(chain.socket(), "p", RATE, Qos::default());
    (0..TIERS).for_each(|tier| takes(&chain, tier));
    disks.iter().for_each(Disk::settle);
    let (mut back, mut unsynced_gone) = (Vec::new(), 0);
    let cuts = TIERS * if full() { 20 } else { 3 };
    for cut in 0..cuts {
        let (tier, disk) = (cut % TIERS, &disks[cut % TIERS]);
        // Not always at the same step of what a node does.
        traffic.flows(20 + 37 * (cut % 5));
        disk.write_unsynced();
        // The machine stops with its power. A program that still ran would be told that a sync
        // went well of which the file system, shut down meanwhile, has dropped the journal's part
        // (Linux 6.18: 23 times of 150), and would acknowledge by that.
        freeze(&chain, tier);
        disk.cut();
        chain.stop(tier);
        disk.again();
        unsynced_gone += usize::from(disk.lost_unsynced());
        let started = Instant::now();
        chain.run(tier);
        takes(&chain, tier);
        back.push(started.elapsed());
    }
    let accepted = traffic.finish();
    let stored = told::once_each(&chain, &accepted);
    // Otherwise the disks keep what nobody synced, and this test shows nothing.
    assert!(unsynced_gone > 0, "what was written without a sync outlived {cuts} cuts");
    println!(
        "{cuts} power cuts over {TIERS} tiers: {} accepted, {stored} stored, 0 lost, 0 twice; a \
        file without a sync was gone after {unsynced_gone}; messages taken again {}",
        accepted.len(),
        spread(&mut back, Duration::ZERO),
    );
}
