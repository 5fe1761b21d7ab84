//! What is typed during a failover reaches the guest once.

use super::guest::{APPEND, Folder, alone};
use super::seed::Random;
use super::up;
use std::time::Duration;

fn type_through_a_failover(active: &str, seed: u64) {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("up", APPEND, &up(&["--active", active]));
    guest.until_shell();
    guest.until_protected();
    guest.type_text("stty -echo; echo READY-$((6 * 7)); cat > /root/typed; sync\n");
    guest.until("the guest reads", 60, |guest| guest.console().contains("READY-42"));

    let mut random = Random::new(seed);
    let mut typed = String::new();
    for n in 0..80 {
        // Pieces end anywhere in a line.
        let len = 1 + random.below(40);
        let piece = random.word(len) + if random.below(3) == 0 { "\n" } else { "" };
        guest.type_text(&piece);
        typed.push_str(&piece);
        if n == 40 {
            guest.kill("master");
        }
        std::thread::sleep(Duration::from_millis(random.below(40)));
    }
    guest.type_text("\n\u{4}");
    typed.push('\n');
    guest.type_text("echo BEGIN-$((6 * 7)); cat /root/typed; echo END-$((6 * 7))\n");
    guest.until("the guest's answer", 60, |guest| guest.console().contains("END-42"));
    let console = guest.console().replace('\r', "");
    let (_, answer) = console.split_once("BEGIN-42\n").expect("the answer begins");
    let (answer, _) = answer.split_once("END-42").expect("the answer ends");
    assert_eq!(answer, typed, "seed {seed}");
    assert_eq!(guest.events("failover").len(), 1);
    assert!(guest.down().success(), "{}", guest.errors());
}

#[test]
fn typing_during_a_failover_loses_and_doubles_nothing_under_replay() {
    type_through_a_failover("replay", 0x5eed_0001);
}

#[test]
fn typing_during_a_failover_loses_and_doubles_nothing_under_the_passive_baseline() {
    type_through_a_failover("off", 0x5eed_0002);
}
