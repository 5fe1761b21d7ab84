//! Answers to what comes over the control socket.

use super::child::Child;
use super::pair::Pair;
use crate::control::{Ask, refusal};
use ft_pair_shared::Side;
use ft_pair_shared::supervision::ToSide;
use serde_json::{Value, json};
use tokio::sync::oneshot;

impl Pair<'_, '_> {
    pub(super) fn answer(&mut self, ask: Ask, reply: oneshot::Sender<Value>) {
        // Whoever asked may have gone; then nobody needs the answer.
        let answer = match ask {
            Ask::Status => self.status(),
            Ask::Stats => self.stats(),
            Ask::Console => refusal("a console is not asked for here"),
            Ask::PowerOff => {
                self.ask_for_end();
                json!({ "ok": true })
            }
            Ask::Down => {
                self.sup.waiting.push(reply);
                return self.ask_for_end();
            }
            Ask::Failover => match self.slave() {
                Some(slave) => {
                    slave.tell(ToSide::Failover);
                    self.failover_reply = Some(reply);
                    return;
                }
                None => refusal("there is no Slave that could go live"),
            },
            Ask::Inject { fault } => match self.slave() {
                Some(slave) => {
                    slave.tell(ToSide::Inject { fault });
                    json!({ "ok": true })
                }
                None => refusal("there is no Slave to inject a fault into"),
            },
        };
        drop(reply.send(answer));
    }

    fn status(&self) -> Value {
        let master = self.children.iter().find(|child| self.is_master(child.process));
        json!({
            "name": self.sup.name,
            "image": self.sup.choice.image,
            "generation": self.witness.record().generation.0,
            "protected": self.protected,
            "master": master.map(member),
            "slave": self.slave().map(member),
            "uptime_s": self.sup.events.began().elapsed().as_secs_f64(),
            "epoch": self.sup.events.epoch().0,
            "active": self.sup.args.active.name(),
            "mem": self.machine.memory,
            "recording": self.recording,
            "supervisor": std::process::id(),
            "said": self.sup.reporter.said(),
        })
    }

    fn stats(&self) -> Value {
        let mut value = serde_json::to_value(self.sup.events.totals()).unwrap_or_default();
        value["name"] = json!(self.sup.name);
        value["uptime_s"] = json!(self.sup.events.began().elapsed().as_secs_f64());
        value
    }
}

fn member(child: &Child) -> Value {
    let side = match child.process.side {
        Side::A => "A",
        Side::B => "B",
    };
    json!({ "pid": child.pid, "side": side })
}
