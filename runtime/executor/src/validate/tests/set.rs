//! The set as a whole, and the configuration.

use super::*;

#[test]
fn the_set_as_a_whole() {
    let again = Object::Network(network());
    refused(
        |p| p.more.push(again),
        r#"networks["app"]"#,
        "appears twice",
    );
    let secret = Object::Secret(v1::Secret {
        id: "x".into(),
        ..Default::default()
    });
    refused(
        |p| p.more.push(secret),
        r#"secrets["x"]"#,
        "not supported yet",
    );
    let held = Assignment::default();
    let mut request = Parts::good().request();
    request.results_in.clear();
    request.applies_to = "0".into();
    request.changes[0].action = 1;
    request.changes[1].object = None;
    request.r#type = 0;
    let all = check(&request, &held).unwrap_err();
    for wanted in [
        "results_in: must not be empty",
        "applies_to: ",
        "tasks[\"t1\"]: a COMPLETE set has no REMOVE",
        "changes[1]: names no object",
    ] {
        assert!(
            all.iter().any(|v| v.starts_with(wanted)),
            "{wanted} not in {all:#?}"
        );
    }
    request.r#type = 9;
    assert!(check(&request, &held).unwrap_err()[0].starts_with("type: 9"));
}

#[test]
fn what_is_held_only_grows() {
    let held = accepted(|_| {});
    #[track_caller]
    fn next(held: &Assignment, change: impl FnOnce(&mut Parts), wanted: Option<&str>) {
        let mut parts = Parts::good();
        change(&mut parts);
        match (check(&parts.request(), held), wanted) {
            (Ok(_), None) => {}
            (Err(all), Some(wanted)) => {
                assert!(
                    all.len() == 1 && all[0].contains(wanted),
                    "{wanted} not in {all:#?}"
                );
            }
            (result, _) => panic!("{wanted:?}: {result:?}"),
        }
    }
    next(
        &held,
        |p| p.other.version = 2,
        Some(r#"nodes["n2"].version: 2 is older than 3"#),
    );
    next(
        &held,
        |p| p.other.steering_id = 9,
        Some(r#"nodes["n2"].version: 3 is held with another"#),
    );
    next(&held, |p| p.other.acknowledged_version = 3, None);
    next(
        &held,
        |p| p.endpoint.version = 1,
        Some(r#"endpoints["e1"].version: 1 is older than 2"#),
    );
    next(
        &held,
        |p| p.endpoint.state = 2,
        Some(r#"endpoints["e1"].version: 2 is held with another"#),
    );
    next(
        &held,
        |p| (p.endpoint.state, p.endpoint.version) = (2, 3),
        None,
    );
    next(
        &held,
        |p| p.task.desired_state = 384,
        Some("it never decreases"),
    );
    next(&held, |p| p.task.desired_state = 640, None);
    next(&held, |p| p.task.slot = 4, Some("only desired_state"));
    next(
        &held,
        |p| p.network.subnets[0].vni = 4099,
        Some("cannot change while a task"),
    );
}

#[test]
fn an_increment_changes_only_what_it_names() {
    let held = accepted(|_| {});
    let change = |action, object| v1::Change {
        action,
        object: Some(object),
    };
    let named = |id: &str| {
        Object::Endpoint(v1::EndpointRecord {
            id: id.into(),
            ..Default::default()
        })
    };
    let request = v1::AssignRequest {
        r#type: v1::AssignmentType::Incremental as i32,
        applies_to: "1".into(),
        results_in: "2".into(),
        changes: vec![change(1, named("e1")), change(1, named("never-there"))],
        node_config: None,
    };
    let new = check(&request, &held).unwrap();
    assert!(new.endpoints.is_empty());
    assert!(Arc::ptr_eq(&new.tasks["t1"], &held.tasks["t1"]));
    let object = Object::Network(v1::Network {
        id: "app".into(),
        ..Default::default()
    });
    let request = v1::AssignRequest {
        changes: vec![change(1, object)],
        ..request
    };
    let all = check(&request, &held).unwrap_err();
    assert!(
        all.iter()
            .any(|v| v.contains("there is no network \"app\"")),
        "{all:#?}"
    );
}

#[test]
fn configurations() {
    let bad = |change: &dyn Fn(&mut v1::NodeConfig), field: &str| {
        let mut config = config();
        change(&mut config);
        let v = node_config(&config).unwrap_err();
        assert_eq!(v.list()[0].field, field);
    };
    assert!(node_config(&config()).is_ok());
    bad(&|c| c.node_id.clear(), "config.node_id");
    bad(&|c| c.data_path_port = 65_536, "config.data_path_port");
    bad(
        &|c| c.gwbridge_subnets = vec!["x".into()],
        "config.gwbridge_subnets[0]",
    );
    bad(
        &|c| c.gwbridge_subnets = vec!["fd00::/64".into()],
        "config.gwbridge_subnets",
    );
    bad(
        &|c| c.gwbridge_subnets = vec!["10.0.0.0/8".into(), "172.18.0.0/16".into()],
        "config.gwbridge_subnets[1]",
    );
    bad(&|c| c.engine = "haproxy".into(), "config.engine");
}

#[test]
fn the_gwbridge_is_in_no_network_of_a_task_that_needs_it() {
    let inside = |p: &mut Parts| {
        p.network.subnets[0].cidr = "172.18.5.0/24".into();
        p.network.subnets[0].gateway.clear();
        p.task.networks[0].addresses[0] = "172.18.5.5/24".into();
        p.service.virtual_ips[0].address = "172.18.5.2".into();
        p.endpoint.addresses[0] = "172.18.5.5".into();
    };
    let at = r#"tasks["t1"].networks[0].network_id"#;
    refused(inside, at, "overlaps 172.18.0.0/16 of the gwbridge");
    // One that has no way out has no leg there, unless a port of the node leads to it.
    let internal = |p: &mut Parts| {
        inside(p);
        p.network.internal = true;
    };
    accepted(internal);
    refused(
        |p| {
            internal(p);
            p.task.host_ports = vec![v1::PortConfig {
                target_port: 80,
                published_port: 8081,
                publish_mode: v1::PublishMode::Host as i32,
                ..Default::default()
            }];
        },
        at,
        "choose another",
    );
    // With another gwbridge the same set is good.
    let mut parts = Parts::good();
    inside(&mut parts);
    let config = v1::NodeConfig {
        gwbridge_subnets: vec!["172.19.0.0/16".into()],
        ..config()
    };
    let held = Assignment::default();
    let new = assignment(
        &parts.request(),
        &held,
        &BTreeMap::new(),
        &config,
        Engine::Nft,
    );
    assert!(new.is_ok(), "{new:?}");
}

#[test]
fn a_network_stays_until_a_task_that_is_being_stopped_has_left_it() {
    let held = accepted(|_| {});
    let mut local = Local::new(Arc::clone(&held.tasks["t1"]));
    local.networks = vec![Arc::clone(&held.networks["app"])];
    let mut changed = network();
    changed.subnets[0].vni = 4099;
    // The task has left the set, and perhaps the network has too.
    let without_task = complete([Object::Network(network())]);
    let without_both = complete([]);
    for before in [without_task, without_both] {
        let before = check(&before, &held).unwrap();
        let after = |local: &Local, network: &v1::Network| {
            let request = complete([Object::Network(network.clone())]);
            let locals = BTreeMap::from([("t1".to_owned(), Arc::new(local.clone()))]);
            assignment(&request, &before, &locals, &config(), Engine::Nft)
        };
        local.record.sandbox = true;
        assert!(after(&local, &network()).is_ok());
        let refused = after(&local, &changed).unwrap_err();
        assert_eq!(refused.list()[0].field, r#"networks["app"]"#);
        assert!(refused.list()[0].reason.contains("task \"t1\""));
        local.record.sandbox = false;
        assert!(after(&local, &changed).is_ok());
    }
}
