"""Volumes that are sparse files in LAB_VOLUMES: nothing is copied, and a driver of real machines can use them."""

import os
import pathlib

from cinder.volume import driver

FOLDER = pathlib.Path(os.environ["LAB_VOLUMES"])


class LabVolumeDriver(driver.VolumeDriver):
    """One file a volume, ``<id>``; beside it ``<id>.image`` with the id of the image that it was made from, if any."""

    VERSION = "1"

    def do_setup(self, context):
        FOLDER.mkdir(parents=True, exist_ok=True)

    def check_for_setup_error(self):
        pass

    def _update_volume_stats(self):
        self._stats = {
            "volume_backend_name": "lab",
            "vendor_name": "lab",
            "driver_version": self.VERSION,
            "storage_protocol": "file",
            "total_capacity_gb": "infinite",
            "free_capacity_gb": "infinite",
            "reserved_percentage": 0,
            "multiattach": False,
        }

    def local_path(self, volume):
        return str(FOLDER / volume.id)

    def create_volume(self, volume):
        (FOLDER / volume.id).touch()
        os.truncate(FOLDER / volume.id, volume.size << 30)

    def delete_volume(self, volume):
        for name in (volume.id, f"{volume.id}.image"):
            (FOLDER / name).unlink(missing_ok=True)

    def extend_volume(self, volume, new_size):
        os.truncate(self.local_path(volume), new_size << 30)

    def clone_image(self, context, volume, image_location, image_meta, image_service):
        """Say that the image is already in the volume; a driver of real machines sees which from the file beside."""
        self.create_volume(volume)
        (FOLDER / f"{volume.id}.image").write_text(image_meta["id"])
        return {}, True

    def create_cloned_volume(self, volume, src_vref):
        self.create_volume(volume)

    def create_snapshot(self, snapshot):
        pass

    def delete_snapshot(self, snapshot):
        pass

    def create_volume_from_snapshot(self, volume, snapshot):
        self.create_volume(volume)

    def ensure_export(self, context, volume):
        pass

    def create_export(self, context, volume, connector):
        pass

    def remove_export(self, context, volume):
        pass

    def initialize_connection(self, volume, connector):
        return {"driver_volume_type": "local", "data": {"device_path": self.local_path(volume), "access_mode": "rw"}}

    def terminate_connection(self, volume, connector, **kwargs):
        pass
