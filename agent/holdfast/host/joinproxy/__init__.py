"""The join proxy: carries the connections of pledges that have no route to a registrar (RFC 8995 §4)."""
