//! Repair of a Slave whose digest differed (`replay`).

use super::{MasterAction, MasterProtocol, Stage};
use crate::Epoch;
use crate::protocol::{BulkToSlave, ControlToSlave, Incarnation, Payload};

impl MasterProtocol {
    /// The Slave is not verified from `first` on. A mismatch before the pair is protected ends the session:
    /// a fresh synchronisation is the repair.
    pub(super) fn mismatch(&mut self, first: Epoch) {
        let acked = self.link.map_or(Epoch(0), |link| link.acked);
        // A guest that is off does not stand at an epoch's end to be compared with.
        let no_repair = self.stage != Stage::Protected || self.finishing;
        if no_repair || first != acked.next() || first > self.ended {
            return self.lose_slave();
        }
        self.stage = Stage::Diverged { first };
    }

    /// The guest is off: nobody answers a pause any more, so a repair that waits for one never begins.
    pub(super) fn guest_is_off(&mut self) {
        self.finishing = true;
        if matches!(self.stage, Stage::Diverged { .. }) {
            self.lose_slave();
        }
    }

    pub(super) fn request_repair(&mut self, first: Epoch) {
        let at = self.standing_at();
        assert!(at.epoch >= first, "a repair reaches at least the epoch that differed");
        self.stage = Stage::Repairing { first, at };
        self.send_control(ControlToSlave::RequestRepair { first, at });
    }

    pub(super) fn repair_digests(&mut self, at_epoch: Epoch, digests: Payload) {
        let (Stage::Repairing { first, at }, Some(link)) = (self.stage, self.link) else {
            return;
        };
        if at.epoch == at_epoch {
            let slave = link.process.incarnation;
            self.out.push(MasterAction::CollectRepair { slave, first, at, digests });
        }
    }

    pub(super) fn repair_ready(&mut self, slave: Incarnation, payload: Payload) {
        let Stage::Repairing { first, at } = self.stage else { return };
        if !self.is_slave(slave) {
            return;
        }
        let held: Vec<_> = self.held.iter().filter(|held| held.epoch >= first).cloned().collect();
        assert!(
            held.first().is_some_and(|held| held.epoch == first),
            "output of an unverified epoch was not released, so it is still here"
        );
        self.send_bulk(BulkToSlave::RepairData { first, mark: at, held, payload });
    }

    pub(super) fn repaired(&mut self, epoch: Epoch, durable: u64) {
        let Stage::Repairing { at, .. } = self.stage else { return self.lose_slave() };
        if at.epoch != epoch {
            return self.lose_slave();
        }
        self.stage = Stage::Protected;
        self.acked(epoch, durable);
    }
}
