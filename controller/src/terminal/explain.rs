//! The same run by other means: lines for `mosquitto_pub` and `curl`.

use pistat_protocol::api::NewRun;

use super::Style;

/// The equivalent lines. `base_url` is the controller's, such as `http://controller:8000`, `mqtt_port` that of its broker.
pub fn explain(_run: &NewRun, _prefix: &str, _base_url: &str, _mqtt_port: Option<u16>, _style: Style) -> String {
    todo!()
}
