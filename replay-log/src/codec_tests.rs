use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// Steps from record to record, which [`records`] turns into a valid log.
type Step = (u64, u64, u32, Kind);

#[derive(Debug, Clone)]
enum Kind {
    Input(Input),
    Epoch(u64, [u8; 32]),
    TlbFlush,
}

fn small() -> impl Strategy<Value = u64> {
    (any::<u64>(), 24u32..64).prop_map(|(n, shift)| n >> shift)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        any::<(u64, u64)>().prop_map(|(time_ns, rate)| Kind::Input(Input::Clock { time_ns, rate })),
        (any::<u64>(), vec(any::<u8>(), 0..80))
            .prop_map(|(first, bytes)| Kind::Input(Input::Console { first, bytes })),
        Just(Kind::Input(Input::PowerButton)),
        (small(), any::<[u8; 32]>()).prop_map(|(skip, digest)| Kind::Epoch(skip, digest)),
        Just(Kind::TlbFlush),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let less = || prop_oneof![Just(0), small()];
    vec((less(), less(), 0u32..3, kind()), 0..60)
}

/// Records at growing positions, with an End record last.
fn records(steps: Vec<Step>) -> Vec<Record> {
    let (mut at, mut epoch, mut out) = (Position::ZERO, 0, Vec::new());
    for (retired, rep, seq, kind) in steps {
        at = match (retired, rep) {
            (0, 0) => Position { seq: at.seq + seq, ..at },
            (0, rep) => Position { rep: at.rep + rep, seq, ..at },
            (retired, rep) => Position { retired: at.retired + retired, rep, seq },
        };
        let position = at;
        out.push(match kind {
            Kind::Input(input) => {
                at = at.after_input();
                Record::Input { position, input }
            }
            Kind::Epoch(skip, digest) => {
                epoch += skip + 1;
                Record::EpochEnd { epoch: Epoch(epoch), position, digest }
            }
            Kind::TlbFlush => Record::TlbFlush { position },
        });
    }
    out.push(Record::End { position: at });
    out
}

fn encode(records: &[Record]) -> (Vec<u8>, Vec<usize>) {
    let (mut encoder, mut out, mut ends) = (Encoder::new(), Vec::new(), Vec::new());
    for record in records {
        encoder.encode(record, &mut out);
        ends.push(out.len());
    }
    (out, ends)
}

fn clock(position: Position, time_ns: u64, rate: u64) -> Record {
    Record::Input { position, input: Input::Clock { time_ns, rate } }
}

proptest! {
    #[test]
    fn records_come_back(steps in steps()) {
        let records = records(steps);
        let (bytes, _) = encode(&records);
        let (mut decoder, mut rest) = (Decoder::new(), &bytes[..]);
        for record in &records {
            prop_assert_eq!(decoder.decode(&mut rest), Ok(record.clone()));
        }
        prop_assert!(rest.is_empty() && decoder.ended());
        prop_assert_eq!(decoder.last(), records.last().map(Record::position));
    }

    #[test]
    fn a_cut_record_waits_for_more_and_changes_nothing(steps in steps()) {
        let records = records(steps);
        let (bytes, ends) = encode(&records);
        let (mut decoder, mut start) = (Decoder::new(), 0);
        for (record, &end) in records.iter().zip(&ends) {
            for cut in start..end {
                let mut part = &bytes[start..cut];
                prop_assert_eq!(decoder.decode(&mut part), Err(CodecError::Truncated));
                prop_assert_eq!(part.len(), cut - start);
            }
            prop_assert_eq!(decoder.decode(&mut &bytes[start..end]), Ok(record.clone()));
            start = end;
        }
    }

    /// What decodes is the one encoding of what it decodes to.
    #[test]
    fn any_bytes_decode_to_what_encodes_to_them(
        steps in steps(), noise in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        tail in vec(any::<u8>(), 0..40),
    ) {
        let (mut bytes, _) = encode(&records(steps));
        bytes.extend(tail);
        for (at, byte) in noise {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let (mut decoder, mut encoder, mut rest) = (Decoder::new(), Encoder::new(), &bytes[..]);
        let mut again = Vec::new();
        while let Ok(record) = decoder.decode(&mut rest) {
            encoder.encode(&record, &mut again);
        }
        prop_assert_eq!(&again[..], &bytes[..bytes.len() - rest.len()]);
    }
}

/// An anchor every 25 ms at about 40 million instructions a second: mostly the time that the anchor
/// before gives, at a slewed rate; after idling a jump of time at the old rate.
#[test]
fn a_typical_clock_anchor_has_at_most_12_bytes() {
    let (mut encoder, mut at, mut time, mut rate) = (Encoder::new(), 0u64, 0u64, 25u64 << 32);
    for i in 0..1000u64 {
        let ran = 1_000_000 + i * 104_729 % 90_000;
        at += ran;
        time += ((u128::from(ran) * u128::from(rate)) >> 32) as u64;
        if i % 10 == 0 {
            time += i * 1_299_709 % 100_000_000;
        } else {
            rate = (25 << 32) + (i * 7919 % 1000) * 4_294_967;
        }
        let mut out = Vec::new();
        encoder.encode(&clock(Position::at(at), time, rate), &mut out);
        assert!(i == 0 || out.len() <= 12, "{} bytes", out.len());
    }
}

#[test]
fn a_console_length_is_not_believed() {
    let mut bytes = vec![CONSOLE, 0, 0];
    varint::put(&mut bytes, MAX_CONSOLE_BYTES as u64);
    assert_eq!(Decoder::new().decode(&mut &bytes[..]), Err(CodecError::Truncated));
    bytes.truncate(3);
    varint::put(&mut bytes, u64::MAX);
    assert_eq!(Decoder::new().decode(&mut &bytes[..]), Err(CodecError::TooLong(u64::MAX)));
}

#[test]
fn numbers_at_their_limits_come_back() {
    let top = Position { retired: u64::MAX, rep: u64::MAX, seq: u32::MAX };
    let records = [
        clock(Position::ZERO, u64::MAX, u64::MAX),
        Record::EpochEnd { epoch: Epoch(u64::MAX), position: Position::at(1), digest: [1; 32] },
        clock(top, 0, 0),
    ];
    let (bytes, _) = encode(&records);
    let (mut decoder, mut rest) = (Decoder::new(), &bytes[..]);
    for record in &records {
        assert_eq!(decoder.decode(&mut rest).as_ref(), Ok(record));
    }
    // Nothing lies beyond.
    assert_eq!(decoder.decode(&mut &[END, 1][..]), Err(CodecError::Range));
    assert_eq!(decoder.decode(&mut &[END | HAS_REP, 0, 1][..]), Err(CodecError::Range));
    assert_eq!(decoder.decode(&mut &[END | HAS_SEQ, 0, 1][..]), Err(CodecError::Range));
    let mut epoch = vec![EPOCH_END, 0, 0];
    epoch.extend([0; 32]);
    assert_eq!(decoder.decode(&mut &epoch[..]), Err(CodecError::Range));
}

#[test]
#[should_panic(expected = "positions only grow")]
fn an_input_takes_its_position() {
    let mut encoder = Encoder::new();
    encoder.encode(&clock(Position::at(5), 0, 0), &mut Vec::new());
    encoder.encode(&clock(Position::at(5), 0, 0), &mut Vec::new());
}

#[test]
#[should_panic(expected = "epochs only grow")]
fn an_epoch_ends_once() {
    let end = Record::EpochEnd { epoch: Epoch(1), position: Position::at(5), digest: [0; 32] };
    let mut encoder = Encoder::new();
    encoder.encode(&end, &mut Vec::new());
    encoder.encode(&end, &mut Vec::new());
}

#[test]
fn an_input_may_follow_the_end_of_an_epoch_at_its_position() {
    let position = Position::at(5);
    let end = Record::EpochEnd { epoch: Epoch(1), position, digest: [0; 32] };
    encode(&[end, clock(position, 0, 0), Record::End { position: position.after_input() }]);
}
