//! What one machine's document says.

use std::collections::BTreeSet;

use pistat_protocol::stats::{Disk, Power, Sample};
use pistat_protocol::time::Timestamp;

use super::*;

fn pi(text: &str) -> PiId {
    text.parse().unwrap()
}

fn place() -> Place {
    Place {
        topics: Topics::default(),
        prefix: "homeassistant".into(),
        dashboard: Some("http://controller:8000".into()),
    }
}

fn info() -> Info {
    let session = "a".repeat(32);
    let json = json!({
        "model": "Raspberry Pi 4 Model B Rev 1.4", "serial": "10000000abcdef01", "agent_version": "0.1.0", "boot_id": "b", "session": session, "boot_time": "2026-10-12T09:36:17.000Z",
        "execution_policy": "controller", "runner": false, "interval_seconds": 5.0,
        "capabilities": ["cpu_percent", "memory_percent", "temperature_celsius", "disks", "power"],
    });
    serde_json::from_value(json).unwrap()
}

fn sample() -> Sample {
    let mut sample = Sample::new(Timestamp::from_unix_milliseconds(0), true, 1);
    sample.cpu_percent = Some(12.0);
    sample.memory_percent = Some(40.0);
    sample.temperature_celsius = Some(48.3);
    let disk = |mount: &str| Disk { mount: mount.into(), used_bytes: 1, total_bytes: 2, used_percent: 50.0 };
    sample.disks = Some(vec![disk("/"), disk("/boot/firmware")]);
    sample.power = Some(Power::from_throttled(0));
    sample
}

fn known(info: &Info, sample: &Sample) -> Known {
    let mut known = Known::default();
    known.info(info, Some(sample));
    known
}

fn button(task: &str, ends: Ends) -> Button {
    Button { task: task.parse().unwrap(), label: format!("Task {task}"), ends }
}

fn document(pi: &PiId, info: &Info, sample: &Sample) -> Value {
    let buttons = vec![button("uptime", Ends::Exit), button("re-boot", Ends::Restart)];
    let facts = Facts { label: "Rack Pi 1".into(), info, buttons };
    let components = place().components(pi, &facts, &known(info, sample), None);
    let values: Map<String, Value> = components.into_iter().map(|(key, (_, value))| (key, value)).collect();
    serde_json::from_slice(&place().text(pi, &facts, &values)).unwrap()
}

#[test]
fn a_document_has_a_device_an_origin_and_the_availability_of_controller_and_machine() {
    let document = document(&pi("pi-1"), &info(), &sample());
    let device = json!({
        "ids": ["pistat_pi-1"], "name": "Rack Pi 1", "mf": "Raspberry Pi Ltd", "mdl": "Raspberry Pi 4 Model B Rev 1.4", "sn": "10000000abcdef01",
        "sw": "pistat-agent 0.1.0", "cu": "http://controller:8000/#/pi/pi-1", "via_device": "pistat_controller",
    });
    assert_eq!(document["dev"], device);
    assert_eq!(document["o"]["name"], "pistat");
    assert_eq!(
        document["availability"],
        json!([{"topic": "pistat/controller/status"}, {"topic": "pistat/pi-1/status"}])
    );
    assert_eq!((&document["availability_mode"], &document["qos"]), (&json!("all"), &json!(1)));
    assert_eq!(document["state_topic"], "pistat/pi-1/stats");
    assert!(document.get("~").is_none() && document.get("availability_topic").is_none());
    assert!(document["dev"].get("connections").is_none());
}

#[test]
fn every_component_has_a_platform_a_unique_id_and_more() {
    let document = document(&pi("pi-1"), &info(), &sample());
    let components = document["cmps"].as_object().unwrap();
    assert!(components.len() > 12);
    let mut ids = BTreeSet::new();
    for (key, component) in components {
        let platform = component["p"].as_str().unwrap();
        assert!(["sensor", "binary_sensor", "button", "event"].contains(&platform), "{key}");
        assert_eq!(component["unique_id"], format!("pistat_pi-1_{key}"));
        let id = component["default_entity_id"].as_str().unwrap();
        assert!(id.starts_with(&format!("{platform}.rack_pi_1_")) && !id.contains("__"), "{id}");
        assert!(component.as_object().unwrap().len() > 4 && ids.insert(id.to_owned()), "{key}");
        assert!(component.get("object_id").is_none());
        let is_sensor = platform == "sensor";
        assert!(!is_sensor || component.get("entity_category").is_none_or(|category| category == "diagnostic"));
        let of_stats = component.get("state_topic").is_none() && platform != "button";
        assert_eq!(component.get("expire_after"), of_stats.then(|| json!(15)).as_ref(), "{key}");
    }
}

#[test]
fn sensors_have_the_units_and_classes_of_home_assistant() {
    let document = document(&pi("pi-1"), &info(), &sample());
    let cpu = json!({
        "p": "sensor", "name": "CPU", "unique_id": "pistat_pi-1_cpu", "default_entity_id": "sensor.rack_pi_1_cpu", "unit_of_measurement": "%",
        "state_class": "measurement", "suggested_display_precision": 0, "expire_after": 15, "icon": "mdi:chip",
        "value_template": "{{ value_json.cpu_percent | default('None') }}",
    });
    assert_eq!(document["cmps"]["cpu"], cpu);
    let boot = &document["cmps"]["boot_time"];
    assert_eq!((&boot["device_class"], &boot["state_topic"]), (&json!("timestamp"), &json!("pistat/pi-1/info")));
    assert!(boot.get("unit_of_measurement").is_none() && boot.get("state_class").is_none());
    assert_eq!(document["cmps"]["temperature"]["device_class"], "temperature");
    assert_eq!(document["cmps"]["disk"]["name"], "Disk");
    let disk = &document["cmps"]["disk_boot_firmware"];
    assert_eq!((&disk["name"], &disk["unit_of_measurement"]), (&json!("Disk /boot/firmware"), &json!("%")));
}

#[test]
fn what_must_be_told_of_a_machine_that_is_away_asks_for_the_controller_only() {
    let away = document(&pi("pi-1"), &info(), &sample());
    let controller = json!([{"topic": "pistat/controller/status"}]);
    assert_eq!(away["cmps"]["online"]["availability"], controller);
    assert_eq!(away["cmps"]["task_result"]["availability"], controller);
    assert_eq!(away["cmps"]["online"]["payload_off"], "offline");
    assert!(away["cmps"]["cpu"].get("availability").is_none());
    let own = document(&PiId::controller(), &info(), &sample());
    assert_eq!(own["availability"], controller);
    assert_eq!(own["cmps"]["online"]["availability"], json!([]));
    assert!(own["dev"].get("via_device").is_none());
}

#[test]
fn a_button_asks_for_its_task_and_is_never_retained() {
    let document = document(&pi("pi-1"), &info(), &sample());
    let button = &document["cmps"]["task_re_boot"];
    assert_eq!(button["command_topic"], "pistat/pi-1/task/request");
    assert_eq!((&button["payload_press"], &button["retain"]), (&json!("re-boot"), &json!(false)));
    assert_eq!((&button["device_class"], &button["entity_category"]), (&json!("restart"), &json!("config")));
    assert!(document["cmps"]["task_uptime"].get("device_class").is_none());
}

#[test]
fn an_event_tells_every_way_a_run_can_end() {
    let document = document(&pi("pi-1"), &info(), &sample());
    let event = &document["cmps"]["task_result"];
    assert_eq!((&event["p"], &event["state_topic"]), (&json!("event"), &json!("pistat/pi-1/task/result")));
    let ends = ["succeeded", "failed", "timed_out", "cancelled", "rejected", "expired", "lost"];
    assert_eq!(event["event_types"], json!(ends));
}

#[test]
fn only_what_the_machine_reports_is_announced() {
    let mut poor = info();
    poor.capabilities = vec!["cpu_percent".into()];
    let mut sample = Sample::new(Timestamp::from_unix_milliseconds(0), true, 1);
    sample.cpu_percent = Some(1.0);
    let document = document(&pi("pi-1"), &poor, &sample);
    let components: Vec<_> = document["cmps"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        components,
        ["boot_time", "clock_synchronized", "cpu", "online", "task_re_boot", "task_result", "task_uptime"]
    );
}

#[test]
fn undervoltage_is_there_and_unknown_where_only_other_problems_can_be_seen() {
    let mut sample = sample();
    sample.power = Some(Power { throttled: Some(false), ..Power::default() });
    let document = document(&pi("pi-1"), &info(), &sample);
    let problems: Vec<_> = document["cmps"].as_object().unwrap().keys().filter(|key| key.contains("volt")).collect();
    assert_eq!(problems, ["undervoltage"]);
    let template = document["cmps"]["undervoltage"]["value_template"].as_str().unwrap();
    assert_eq!(
        template,
        "{% set v = (value_json.power | default({})).undervoltage %}{{ 'None' if v is not defined else 'ON' if v else 'OFF' }}"
    );
    assert!(document["cmps"]["throttled"].is_object());
}

#[test]
fn what_info_told_once_stays_announced() {
    let (info, sample) = (info(), sample());
    let facts = Facts { label: "x".into(), info: &info, buttons: Vec::new() };
    let announced = Components::from([("storage_wear".to_owned(), Component::Of(Platform::Sensor))]);
    let components = place().components(&pi("pi-1"), &facts, &known(&info, &sample), Some(&announced));
    assert!(components.contains_key("storage_wear") && !components.contains_key("updates"));
}

#[test]
fn the_address_is_left_out_when_nobody_knows_it_and_unknown_boards_have_no_manufacturer() {
    let place = Place { dashboard: None, ..place() };
    let mut info = info();
    info.model = Some("Some Board".into());
    let facts = Facts { label: "x".into(), info: &info, buttons: Vec::new() };
    let document: Value = serde_json::from_slice(&place.text(&pi("pi-1"), &facts, &Map::new())).unwrap();
    assert!(document["dev"].get("cu").is_none() && document["dev"].get("mf").is_none());
}

#[test]
fn values_expire_after_three_intervals_in_whole_seconds() {
    for (interval, expected) in [(5.0, 15), (0.2, 1), (1.5, 5), (3600.0, 10_800), (f64::NAN, 10_800), (-1.0, 1)] {
        let mut info = info();
        info.interval_seconds = interval;
        let document = document(&pi("pi-1"), &info, &sample());
        assert_eq!(document["cmps"]["cpu"]["expire_after"], expected, "{interval}");
    }
}

#[test]
fn topics_and_entity_ids_have_only_the_characters_that_are_allowed() {
    let other = Place { topics: Topics::new("home/pis.x").unwrap(), ..place() };
    assert_eq!(other.topic(&pi("pi-1")), "homeassistant/device/home_pis_x_ca7a7a7f_pi-1/config");
    assert_eq!(place().topic(&pi("pi-1")), "homeassistant/device/pistat_pi-1/config");
    let cases = [
        ("Rack Pi 1 CPU", "rack_pi_1_cpu"),
        ("__Küche -- Süd__", "k_che_s_d"),
        ("日本", "pi_1"),
        ("a\u{1b}[31m", "a_31m"),
    ];
    for (text, expected) in cases {
        assert_eq!(slug(text, "pi-1"), expected, "{text}");
    }
}

#[test]
fn a_mount_point_cannot_break_out_of_its_template() {
    let mut sample = sample();
    let mount = "/mnt/it's \"odd\" }} {{ 1 }}\\";
    sample.disks = Some(vec![Disk { mount: mount.into(), used_bytes: 1, total_bytes: 2, used_percent: 1.0 }]);
    let document = document(&pi("pi-1"), &info(), &sample);
    let disk = &document["cmps"]["disk_mnt_it_s_odd_1"];
    let template = disk["value_template"].as_str().unwrap();
    assert!(template.contains(r#"'eq', "/mnt/it's \"odd\" }} {{ 1 }}\\")"#), "{template}");
}

/// The keys of a machine's file systems, when so many were announced before.
fn disks(mounts: &[&str], announced: &Components) -> BTreeMap<String, String> {
    let mut sample = sample();
    let disk = |mount: &&str| Disk { mount: (*mount).into(), used_bytes: 1, total_bytes: 2, used_percent: 1.0 };
    sample.disks = Some(mounts.iter().map(disk).collect());
    let info = info();
    let facts = Facts { label: "Rack Pi 1".into(), info: &info, buttons: Vec::new() };
    let components = place().components(&pi("pi-1"), &facts, &known(&info, &sample), Some(announced));
    let of_disk = |(key, (component, value)): (String, (Component, Value))| {
        let Component::Disk { disk } = component else { return None };
        assert_eq!(value["unique_id"], format!("pistat_pi-1_{key}"));
        Some((disk, key))
    };
    components.into_iter().filter_map(of_disk).collect()
}

fn announced(disks: &BTreeMap<String, String>) -> Components {
    disks.iter().map(|(disk, key)| (key.clone(), Component::Disk { disk: disk.clone() })).collect()
}

#[test]
fn every_file_system_is_announced_and_the_first_of_those_with_one_key_has_it_as_before() {
    let mounts = [
        "/",
        "/media/写真",
        "/media/音楽",
        "/media/Кино",
        "/media/usb-1",
        "/media/usb_1",
        "/写真",
        "/音楽",
        "/read",
        "/boot/firmware",
    ];
    let keys = disks(&mounts, &Components::new());
    assert_eq!(keys.len(), mounts.len(), "{keys:?}");
    let distinct: BTreeSet<_> = keys.values().collect();
    assert_eq!(distinct.len(), mounts.len(), "{keys:?}");
    for (mount, key) in [
        ("/", "disk"),
        ("/boot/firmware", "disk_boot_firmware"),
        ("/media/usb-1", "disk_media_usb_1"),
        ("/写真", "disk_pi_1"),
    ] {
        assert_eq!(keys[mount], key);
    }
    assert!(keys["/media/usb_1"].starts_with("disk_media_usb_1_"), "{keys:?}");
    assert!(keys["/read"].starts_with("disk_read_"), "the rate of reading has the other: {keys:?}");
    assert_eq!(disks(&mounts, &announced(&keys)), keys, "they stay");
}

#[test]
fn a_file_system_keeps_its_key_whatever_comes_beside_it() {
    let first = disks(&["/", "/media/usb_1"], &Components::new());
    assert_eq!(first["/media/usb_1"], "disk_media_usb_1");
    let both = disks(&["/", "/media/usb-1", "/media/usb_1"], &announced(&first));
    assert_eq!(both["/media/usb_1"], "disk_media_usb_1", "though the other's name is before it");
    assert_ne!(both["/media/usb-1"], both["/media/usb_1"]);
    let alone = disks(&["/", "/media/usb-1"], &announced(&both));
    assert_eq!(alone["/media/usb-1"], both["/media/usb-1"]);
    let later = disks(&["/", "/media/usb-1"], &announced(&alone));
    assert_eq!(later["/media/usb-1"], both["/media/usb-1"], "though the plain key is free now");
    // What a version before this kept has no names: the first has the key, as it had.
    let old = Components::from([("disk_media_usb_1".to_owned(), Component::Of(Platform::Sensor))]);
    assert_eq!(disks(&["/media/usb-1", "/media/usb_1"], &old)["/media/usb-1"], "disk_media_usb_1");
    let text = serde_json::to_string(&announced(&first)).unwrap();
    assert_eq!(text, r#"{"disk":{"disk":"/"},"disk_media_usb_1":{"disk":"/media/usb_1"}}"#);
    assert_eq!(serde_json::from_str::<Components>(r#"{"disk_media_usb_1":"sensor"}"#).unwrap(), old);
}

#[test]
fn a_task_named_result_and_labels_in_any_script_have_ids_of_their_own() {
    let (info, sample) = (info(), sample());
    let buttons = ["result", "a-b"].map(|task| Button { label: "更新".into(), ..button(task, Ends::Exit) }).into();
    let facts = Facts { label: "日本".into(), info: &info, buttons };
    let components = place().components(&pi("pi-1"), &facts, &known(&info, &sample), None);
    let id = |key: &str| components[key].1["default_entity_id"].as_str().unwrap().to_owned();
    assert_eq!(components["task_result"].0, Component::Of(Platform::Event));
    assert_eq!(components["task__result"].1["payload_press"], "result");
    let ids = ["cpu", "task_a_b", "task__result", "task_result", "disk"].map(id);
    assert_eq!(
        ids,
        [
            "sensor.pi_1_cpu",
            "button.pi_1_task_a_b",
            "button.pi_1_task_result",
            "event.pi_1_task_result",
            "sensor.pi_1_disk"
        ]
    );
}

#[test]
fn the_last_boot_is_announced_once_the_clock_is_synchronised() {
    let has = |info: &Info, announced: &Components| {
        let facts = Facts { label: "x".into(), info, buttons: Vec::new() };
        place().components(&pi("pi-1"), &facts, &known(info, &sample()), Some(announced)).contains_key("boot_time")
    };
    let (with, mut without) = (info(), info());
    without.boot_time = None;
    assert!(has(&with, &Components::new()) && !has(&without, &Components::new()));
    // After a restart of the agent it is told again in a while.
    assert!(has(&without, &Components::from([("boot_time".into(), Component::Of(Platform::Sensor))])));
}

#[test]
fn machines_of_two_prefixes_are_never_one_device() {
    let prefixes = ["pistat", "home", "home/pi", "home_pi", "home-pi", "home/pi/", "Home/pi", "h\u{f6}me"];
    let mut seen = BTreeSet::new();
    for prefix in prefixes.iter().filter_map(|prefix| Topics::new(prefix).ok()) {
        let place = Place { topics: prefix, ..place() };
        for name in ["pi-1", "pi_pi-1", "pi-1_2"] {
            assert!(seen.insert(place.topic(&pi(name))), "{}: {name}", place.topics);
        }
    }
    assert!(seen.len() >= 15, "{seen:?}");
    assert!(seen.iter().all(|topic| topic.chars().all(|c| c.is_ascii_alphanumeric() || "-_/".contains(c))), "{seen:?}");
}
