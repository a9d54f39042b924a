SELECT *
FROM campaign_spend(
  input => TABLE spend_changes PARTITION BY campaign_id,
  open_s => ${open_s},
  minute_s => ${minute_s},
  day_s => ${day_s},
  uid => 'campaign_spend'
)
