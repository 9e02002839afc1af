//! The codec against the specification's own forms, and against bytes that mean harm.

use super::*;

fn frame(bytes: &[u8]) -> Frame<'_> {
    split(bytes, 1 << 20).unwrap().unwrap()
}

fn connect_bytes(flags: u8, level: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 60];
    body.extend_from_slice(rest);
    let mut bytes = vec![0x10, u8::try_from(body.len()).unwrap()];
    bytes.extend_from_slice(&body);
    bytes
}

#[test]
fn a_stream_is_split_only_at_complete_packets() {
    let bytes = [0x30, 3, 0, 1, b'a', 0xC0, 0];
    for cut in 0..5 {
        assert!(split(&bytes[..cut], 100).unwrap().is_none(), "{cut}");
    }
    assert_eq!(split(&bytes, 100).unwrap().unwrap().length, 5);
    assert_eq!(split(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], 100).unwrap_err().reason, reason::MALFORMED_PACKET);
    assert_eq!(split(&[0x30, 0xFF, 0x7F], 100).unwrap_err().reason, reason::PACKET_TOO_LARGE);
}

#[test]
fn a_connect_of_either_version_is_read() {
    let bytes = connect_bytes(0b1100_0010, 4, &[0, 1, b'c', 0, 1, b'u', 0, 2, 0xFF, 0]);
    let connect = decode_connect(&frame(&bytes)).unwrap();
    assert!(!connect.v5 && connect.clean_start && connect.keep_alive == 60 && connect.client_id == "c");
    assert_eq!((connect.user_name, connect.password), (Some("u"), Some(&[0xFF, 0][..])));

    let bytes = connect_bytes(0b0000_0000, 5, &[8, 17, 0, 0, 0, 9, 33, 0, 7, 0, 1, b'c']);
    let connect = decode_connect(&frame(&bytes)).unwrap();
    assert!(connect.v5 && !connect.clean_start);
    assert_eq!((connect.session_expiry, connect.receive_maximum), (9, 7));
}

#[test]
fn wrong_connects_are_refused_with_the_right_code() {
    for (bytes, expected) in [
        (connect_bytes(0, 3, &[0, 0]), reason::UNSUPPORTED_VERSION),
        (connect_bytes(0, 6, &[0, 0]), reason::UNSUPPORTED_VERSION),
        (connect_bytes(1, 4, &[0, 0]), reason::MALFORMED_PACKET),
        (connect_bytes(0b0000_1000, 4, &[0, 0]), reason::MALFORMED_PACKET),
        (connect_bytes(0b0001_1100, 4, &[0, 0, 0, 1, b't', 0, 0]), reason::MALFORMED_PACKET),
        (connect_bytes(0b0100_0000, 4, &[0, 0, 0, 0]), reason::MALFORMED_PACKET),
        (connect_bytes(0, 4, &[0, 1, 0]), reason::MALFORMED_PACKET),
        (connect_bytes(0, 4, &[0, 1, 0xFF]), reason::MALFORMED_PACKET),
        (connect_bytes(0, 4, &[0, 0, 0]), reason::MALFORMED_PACKET),
        (connect_bytes(0, 5, &[3, 33, 0, 0, 0, 0]), reason::PROTOCOL_ERROR),
        (connect_bytes(0, 5, &[6, 34, 0, 1, 34, 0, 1, 0, 0]), reason::PROTOCOL_ERROR),
        (connect_bytes(0, 5, &[3, 35, 0, 1, 0, 0]), reason::PROTOCOL_ERROR),
        (connect_bytes(0, 5, &[2, 99, 1, 0, 0]), reason::MALFORMED_PACKET),
    ] {
        assert_eq!(decode_connect(&frame(&bytes)).unwrap_err().reason, expected, "{bytes:?}");
    }
}

#[test]
fn wrong_packets_of_a_connected_client_are_faults() {
    let cases: [(&[u8], bool); 20] = [
        (&[0x36, 5, 0, 1, b'a', 0, 1], true),
        (&[0x38, 4, 0, 1, b'a', 0], true),
        (&[0x32, 5, 0, 1, b'a', 0, 0], false),
        (&[0x30, 3, 0, 1, b'#'], false),
        (&[0x30, 3, 0, 1, 0], false),
        (&[0x30, 3, 0, 9, b'a'], false),
        (&[0x30, 6, 0, 1, b'a', 2, 11, 1], true),
        (&[0x80, 6, 0, 1, 0, 1, b'a', 0], false),
        (&[0x82, 2, 0, 1], false),
        (&[0x82, 6, 0, 1, 0, 1, b'a', 3], false),
        (&[0x82, 6, 0, 1, 0, 1, b'a', 4], false),
        (&[0x82, 6, 0, 0, 0, 1, b'a', 0], false),
        (&[0x82, 9, 0, 1, 2, 11, 0, 0, 1, b'a', 0], true),
        (&[0xA2, 2, 0, 1], false),
        (&[0xC1, 0], false),
        (&[0xC0, 1, 0], false),
        (&[0x20, 2, 0, 0], false),
        (&[0xF0, 0], false),
        (&[0x00, 0], false),
        (&[0x60, 2, 0, 1], false),
    ];
    for (bytes, v5) in cases {
        assert!(decode(&frame(bytes), v5).is_err(), "{bytes:?}");
    }
}

#[test]
fn what_is_written_can_be_read() {
    let mut properties = write::user_property("k", "v");
    properties.extend_from_slice(&[1, 1]);
    let published = write::Publish {
        dup: true,
        qos: QoS::ExactlyOnce,
        retain: true,
        topic: "a/b",
        packet_id: 77,
        properties: &properties,
        expiry_seconds: Some(5),
        topic_alias: Some(3),
        subscription_ids: &[],
        payload: &[7; 300],
    };
    let mut out = Vec::new();
    write::publish(&mut out, &published, true);
    assert_eq!(out.len(), write::publish_length(&published, true));
    let Packet::Publish(read) = decode(&frame(&out), true).unwrap() else { panic!("not a PUBLISH") };
    assert_eq!((out[0], read.qos, read.retain, read.topic, read.packet_id), (0x3D, QoS::ExactlyOnce, true, "a/b", 77));
    assert_eq!((read.properties.expiry_seconds, read.properties.topic_alias), (Some(5), Some(3)));
    assert_eq!(read.payload, [7; 300]);
}

#[test]
fn random_and_cut_packets_never_panic() {
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let valid: [&[u8]; 4] = [
        &[0x32, 12, 0, 1, b'a', 0, 1, 3, 1, 1, 2, 0, 0, 0],
        &[0x82, 9, 0, 1, 2, 11, 1, 0, 1, b'a', 0],
        &[0xE0, 7, 0, 5, 17, 0, 0, 0, 1],
        &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 0],
    ];
    for round in 0..200_000u64 {
        let mut bytes = valid[usize::try_from(round % 4).unwrap()].to_vec();
        for _ in 0..=random() % 4 {
            let at = usize::try_from(random()).unwrap() % bytes.len();
            bytes[at] = random().to_le_bytes()[0];
        }
        if let Ok(Some(frame)) = split(&bytes, 1 << 20) {
            let _ = decode(&frame, round % 2 == 0);
            let _ = decode_connect(&frame);
        }
    }
}
