//! The kernel writes to the console at any moment, also in the middle of a line of somebody else's: a
//! timer interrupt that took long on a busy host says so between two halves of a line of the ledger. That
//! line would count as lost though the pair never lost it, so a guest with a ledger shows errors only.

use super::guest::{APPEND, Folder, alone, assert_whole};

#[test]
fn kernel_warnings_stay_off_the_console_of_a_ledger() {
    let _alone = alone();
    let folder = Folder::new();
    let mut guest = folder.start("run", &format!("{APPEND} ft.ledger=2"), &[]);
    guest.until_shell();
    // 4: a warning, as `hrtimer: interrupt took ...` is.
    guest.type_text(
        "for i in {1..400}; do echo '<4>noise' >/dev/kmsg; done; dmesg | grep -c noise\n",
    );
    guest.until("the messages were made", 60, |guest| guest.console().contains("\n400"));
    guest.until_more_lines(100);
    assert!(!guest.console().contains("] noise"), "a warning is on the console");
    assert_whole(&guest.ledger(), 1, "console's");
    assert!(guest.down().success(), "{}", guest.errors());
}
