use crate::world::{World, id};

pub(super) async fn a_call_is_entered_once(world: &World) {
    let scene = world.scene();
    let (store, service) = (&scene.store, &scene.service);
    assert_eq!(store.session_of_call(service, 7).await, Ok(None));
    assert_eq!(store.enter_call(service, 7, &id("MZ1")).await, Ok(true));
    for session in ["MZ1", "MZ2"] {
        assert_eq!(store.enter_call(service, 7, &id(session)).await, Ok(false), "{session}");
    }
    // Names are whole numbers of 128 bits.
    let other = 7 | 1 << 127;
    assert_eq!(store.enter_call(service, other, &id("MZ2")).await, Ok(true));
    assert_eq!(store.session_of_call(service, 7).await, Ok(Some(id("MZ1"))));
    assert_eq!(store.session_of_call(service, other).await, Ok(Some(id("MZ2"))));
    let elsewhere = world.scene();
    assert_eq!(elsewhere.store.session_of_call(&elsewhere.service, 7).await, Ok(None), "another service's");
}
