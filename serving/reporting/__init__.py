"""The reporting API: delivery, spend, reach and conversions of campaigns, from Druid."""
