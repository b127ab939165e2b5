"""Physical connections that several sources share."""
