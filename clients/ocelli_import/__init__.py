"""Examples from where people have them: lists of files, COCO, and Azure Custom Vision. Nothing here knows the gateway."""
