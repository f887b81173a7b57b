"""What a trained model is worth: one small file a metric, all put together by ``evaluate``."""
